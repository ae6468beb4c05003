"""Symmetries of mazes: turns and reflections, and the exchange of S and G.

A square has 8, another rectangle 4 that keep its size. A path backwards is the same cells, so
none of them changes what the answer is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from eqr_core.data.form import Keys
from eqr_core.tasks.base import Task, Tokens
from eqr_core.tasks.maze import CHARACTERS, GOAL, OPEN, START, WALL


def places(rows: int, columns: int) -> Iterator[npt.NDArray[np.int64]]:
    """For each symmetry the place that each cell of the image comes from, int64 [tokens]."""
    board = np.arange(rows * columns).reshape(rows, columns)
    for turned in (board, board.T) if rows == columns else (board,):
        for flipped in (turned, turned[::-1]):
            yield flipped.ravel()
            yield flipped[:, ::-1].ravel()


def exchanged() -> Tokens:
    """The token that each token becomes where S and G change places."""
    table = np.arange(len(CHARACTERS) + 1, dtype=np.uint8)
    table[[_token(START), _token(GOAL)]] = _token(GOAL), _token(START)
    return table


def canonical_mazes(task: Task, questions: Tokens) -> Keys:
    """A key of each maze [rows, tokens], equal where a symmetry makes one of the other."""
    return _least(task, [questions, exchanged()[questions]])


def canonical_walls(task: Task, questions: Tokens) -> Keys:
    """The same for the walls alone, wherever S and G are."""
    walls = np.where(questions == _token(WALL), _token(WALL), _token(OPEN)).astype(np.uint8)
    return _least(task, [walls])


def _least(task: Task, boards: list[Tokens]) -> Keys:
    kind = f"S{task.tokens}"
    least: Keys | None = None
    for order in places(task.rows, task.columns):
        for board in boards:
            image = np.ascontiguousarray(board[:, order]).view(kind).reshape(-1)
            least = image if least is None else np.where(image < least, image, least)
    assert least is not None  # every rectangle has symmetries
    return least


def _token(character: str) -> int:
    return CHARACTERS.index(character) + 1
