"""What the data package asks of a task beyond what `Task` says, for whole files at once.

The base class gets by with the task's own parser and checks, one row at a time. A task whose files
are large, or which has a generator or symmetries, has a subclass with its own, listed in `forms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eqr_core.errors import DataError, GridError
from eqr_core.tasks import parse_grid
from eqr_core.tasks.base import Task, Tokens

if TYPE_CHECKING:
    from eqr_core.data.puzzles import PuzzleRow

Keys = npt.NDArray[np.bytes_]
Flags = npt.NDArray[np.bool_]


class Form:
    """One task's puzzles as texts and as tokens [rows, tokens], at all its sizes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def task_of(self, question: str) -> Task:
        """The task with the size of `question`; DataError where there is none."""
        try:
            return parse_grid(question, self.name)[0]
        except GridError as error:
            raise DataError(f"the question: {error}") from None

    def tokens(self, task: Task, texts: Sequence[str]) -> Tokens:
        """Tokens of texts of `task`'s size, uint8 [rows, tokens]."""
        return np.stack([task.encode(parse_grid(text, self.name)[1]) for text in texts])

    def texts(self, task: Task, tokens: Tokens) -> list[str]:
        """Texts of `tokens` [rows, tokens]."""
        return [task.text(task.decode(row)) for row in tokens]

    def fault(self, task: Task, row: PuzzleRow) -> str | None:
        """What makes `row` no solved puzzle of `task`; whether it has other answers is not asked.

        The rules may be left to `broken`.
        """
        grids = []
        for name, text in (("question", row.question), ("answer", row.answer)):
            try:
                found, grid = parse_grid(text, self.name)
            except GridError as error:
                return f"the {name}: {error}"
            if found.size != task.size:
                return f"the {name} is {found.size}; the first question is {task.size}"
            grids.append(grid)
        return None if task.verify(*grids) else "the answer breaks the rules"

    def limits(self, task: Task) -> tuple[tuple[int, int], tuple[int, int]]:
        """Least and greatest token of a question, and of an answer."""
        return (1, task.vocabulary - 1), (1, task.vocabulary - 1)

    def broken(self, task: Task, question: Tokens, answer: Tokens) -> Flags:
        """Whether an answer does not solve its question, [rows]; tokens are within `limits`."""
        pairs = zip(question, answer, strict=True)
        return np.array([not task.verify(task.decode(q), task.decode(a)) for q, a in pairs], bool)

    def several(self, task: Task, question: Tokens) -> tuple[Flags, Flags] | None:
        """Whether a question has more than one answer, and whether that was too hard to tell.

        [rows] each; None where nobody can tell.
        """
        return None

    def grid_keys(self, task: Task, question: Tokens, answer: Tokens) -> Keys | None:
        """A key of what a puzzle shares with its close relatives, equal up to symmetry; or None.

        No two relatives may stand in training and held-out puzzles.
        """
        return None

    def puzzle_keys(self, task: Task, question: Tokens, answer: Tokens) -> Keys | None:
        """A key of each puzzle, equal where puzzles are equal up to symmetry; or None."""
        return None

    def generate(
        self, task: Task, count: int, seed: int, options: Mapping[str, object]
    ) -> Iterator[PuzzleRow]:
        """`count` different puzzles; the same arguments give the same. DataError."""
        raise DataError(f"no generator for {self.name}; give a data file")
