"""The rows of a puzzle file, parsed and checked for an evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from eqr_core.data.puzzles import PuzzleRow, read_puzzles
from eqr_core.errors import DataError, GridError
from eqr_core.tasks import parse_grid
from eqr_core.tasks.base import Grid, Task, Tokens


@dataclass(frozen=True)
class Puzzle:
    """A row of a puzzle file, parsed and checked."""

    task: Task
    grid: Grid
    answer: Grid
    source: str
    rating: int

    @cached_property
    def answer_tokens(self) -> Tokens:
        """The answer as tokens, uint8 [tokens]."""
        return self.task.encode(self.answer)

    @property
    def clues(self) -> int:
        """Cells that the input itself has right."""
        return int((self.task.encode(self.grid) == self.answer_tokens).sum())

    def judge(self, prediction: bytes) -> tuple[int, bool]:
        """(cells that are right, whether it is verified) of answer tokens, one byte a cell."""
        tokens = np.frombuffer(prediction, np.uint8)
        right = int((tokens == self.answer_tokens).sum())
        verified = right == len(tokens) or self.task.verify(self.grid, self.task.decode(tokens))
        return right, verified


def read_rows(path: Path, limit: int | None = None) -> list[PuzzleRow]:
    """The first `limit` rows of a puzzle file, all without; DataError where there are none."""
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; it must be at least 1")
    rows = list(read_puzzles(path, limit))
    if not rows:
        raise DataError(f"{path}: there are no puzzles in it")
    return rows


def parse_rows(rows: Iterable[PuzzleRow], first: int = 0) -> list[Puzzle]:
    """Parse rows; DataError names the first whose answer does not solve its question.

    `first` is the number of the first row, from 0.
    """
    return [_parse(row, number) for number, row in enumerate(rows, start=first + 1)]


def digest_rows(rows: Sequence[PuzzleRow]) -> str:
    """SHA-256 over the content of rows in their order, in hex; the file's form plays no part."""
    digest = hashlib.sha256()
    for row in rows:
        line = (row.source, row.question, row.answer, row.rating)
        digest.update((repr(line) + "\n").encode())
    return digest.hexdigest()


def _parse(row: PuzzleRow, number: int) -> Puzzle:
    if not row.answer.strip():
        raise DataError(f"puzzle {number}: it has no answer, so nothing can be measured on it")
    try:
        task, grid = parse_grid(row.question)
        answer_task, answer = parse_grid(row.answer, task.name)
    except GridError as error:
        raise DataError(f"puzzle {number}: {error}") from None
    if answer_task != task or not task.verify(grid, answer):
        raise DataError(f"puzzle {number}: its answer does not solve its question")
    return Puzzle(task, grid, answer, row.source, row.rating)
