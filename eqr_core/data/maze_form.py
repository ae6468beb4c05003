"""Maze files: rows joined by ``/``, an ``o`` for each cell of the answer's path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import cycle, islice
from typing import get_args

import numpy as np

from eqr_core.data.form import Flags, Form, Keys
from eqr_core.data.maze_paths import Board
from eqr_core.data.maze_symmetry import canonical_mazes, canonical_walls
from eqr_core.data.mazes import Kind, WantedMazes, maze_tokens
from eqr_core.data.puzzles import PuzzleRow
from eqr_core.data.units import puzzle_stream
from eqr_core.errors import DataError, ModelError
from eqr_core.tasks.base import Task, Tokens
from eqr_core.tasks.maze import CHARACTERS
from eqr_core.tasks.maze_parser import maze_at

_WALL, _OPEN, _START, _GOAL, _PATH = range(1, 6)


class MazeForm(Form):
    """Mazes of all sizes."""

    def __init__(self) -> None:
        super().__init__("maze")

    def task_of(self, question: str) -> Task:
        rows = question.split("/")
        try:
            return maze_at(len(rows), len(rows[0]))
        except ModelError as error:
            raise DataError(f"the question: {error}") from None

    def tokens(self, task: Task, texts: Sequence[str]) -> Tokens:
        return maze_tokens(list(texts))

    def texts(self, task: Task, tokens: Tokens) -> list[str]:
        symbols = np.frombuffer((" " + CHARACTERS).encode("ascii"), np.uint8)
        boards = symbols[tokens].reshape(len(tokens), task.rows, task.columns)
        return ["/".join(line.tobytes().decode("ascii") for line in board) for board in boards]

    def fault(self, task: Task, row: PuzzleRow) -> str | None:
        for name, text in (("question", row.question), ("answer", row.answer)):
            lines = text.split("/")
            if len(lines) != task.rows or any(len(line) != task.columns for line in lines):
                return f"the {name} is not {task.size}, as the first question is"
            if wrong := set(text) - set(CHARACTERS + "/"):
                return f"{min(wrong)!r} stands in the {name}, not one of {CHARACTERS!r}"
            if text.count("S") != 1 or text.count("G") != 1:
                return f"the {name} has not exactly one S and one G"
        if row.answer.replace("o", " ") != row.question.replace("o", " "):
            return "the answer changes more of the question than its path"
        return None

    def broken(self, task: Task, question: Tokens, answer: Tokens) -> Flags:
        kept = (question == answer) | ((question == _OPEN) & (answer == _PATH))
        return np.array(
            [
                not same or not _is_shortest(task, board)
                for same, board in zip(kept.all(1), answer, strict=True)
            ],
            bool,
        )

    def several(self, task: Task, question: Tokens) -> tuple[Flags, Flags]:
        found = []
        for row in question:
            board, start, goal = _board(task, row, but=_WALL)
            found.append(board.explore(start)[1][goal] > 1)
        return np.array(found, bool), np.zeros(len(question), bool)

    def grid_keys(self, task: Task, question: Tokens, answer: Tokens) -> Keys:
        """Walls."""
        return canonical_walls(task, question)

    def puzzle_keys(self, task: Task, question: Tokens, answer: Tokens) -> Keys:
        return canonical_mazes(task, question)

    def generate(
        self, task: Task, count: int, seed: int, options: Mapping[str, object]
    ) -> Iterator[PuzzleRow]:
        """`options`: for each kind, the fewest and most steps of its paths; the kinds take turns.

        Without any, perfect mazes.
        """
        wanted = [
            WantedMazes(task.rows, task.columns, _kind(kind), seed, *_paths(kind, paths))
            for kind, paths in (options or {"perfect": (None, None)}).items()
        ]
        with ExitStack() as stack:
            streams = [stack.enter_context(closing(puzzle_stream(one))) for one in wanted]
            yield from map(next, islice(cycle(streams), count))


def _kind(name: str) -> Kind:
    for kind in get_args(Kind):
        if kind == name:
            return kind  # type: ignore[no-any-return]
    raise DataError(f"generator.{name}: there are {' and '.join(get_args(Kind))}")


def _paths(kind: str, value: object) -> tuple[int | None, int | None]:
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if all(type(one) is int or one is None for one in (low, high)):
            return low, high
    raise DataError(f"generator.{kind} is {value!r}; it must be the fewest and most steps")


def _board(task: Task, tokens: Tokens, but: int) -> tuple[Board, int, int]:
    """The board whose open cells are all except those with the token `but`, its S and its G."""
    board = Board.closed(task.rows, task.columns)
    lines = tokens.reshape(task.rows, task.columns)
    for r, line in enumerate(lines):
        first = board.at(r, 0)
        board.cells[first : first + task.columns] = ((line != but) & (line != _WALL)).tobytes()
    ends = (divmod(int((tokens == token).argmax()), task.columns) for token in (_START, _GOAL))
    start, goal = (board.at(*place) for place in ends)
    return board, start, goal


def _is_shortest(task: Task, answer: Tokens) -> bool:
    if (answer == _START).sum() != 1 or (answer == _GOAL).sum() != 1:
        return False
    marks = int((answer == _PATH).sum())
    return all(
        board.explore(start)[0][goal] == marks + 1
        for board, start, goal in (_board(task, answer, _OPEN), _board(task, answer, _WALL))
    )
