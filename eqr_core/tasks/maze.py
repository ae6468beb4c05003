"""Mazes: the one shortest path from S to G through the open cells of a rectangle.

Tokens: 0 pad, ``#`` 1, space 2, ``S`` 3, ``G`` 4, ``o`` 5 (REFERENCE: paper's Maze vocabulary).
Steps go up, down, left and right. In an answer ``o`` marks the cells between S and G; in an input
it marks cells that are known to be on the path, as a clue is known in a Sudoku.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from eqr_core.errors import Problem, shown
from eqr_core.tasks.base import ConstraintLayout, Grid, Task, Tokens

WALL, OPEN, START, GOAL, PATH = "#", " ", "S", "G", "o"
CHARACTERS = WALL + OPEN + START + GOAL + PATH
"""A character's place, counted from 1, is its token."""

MAX_SIDE = 256
"""Most rows, and most columns."""

MAX_PROBLEMS = 100
"""Faults of one grid that are told one by one."""

Place = tuple[int, int]


@dataclass(frozen=True)
class Maze(Task):
    """A maze of `rows` × `columns` cells, each a character."""

    rows: int
    columns: int

    name = "maze"
    vocabulary = len(CHARACTERS) + 1
    blank_token = CHARACTERS.index(OPEN) + 1
    first_value_token = 1
    rating_edges = (9, 19, 39, 99, 199)

    @property
    def layout(self) -> ConstraintLayout | None:
        """None: that cells are connected is no exact cover."""
        return None

    @property
    def example(self) -> Grid:
        """No wall at all, from one corner to the other."""
        open_row = (OPEN,) * self.columns
        rows = [list(open_row) for _ in range(self.rows)]
        rows[0][0], rows[-1][-1] = START, GOAL
        return tuple(map(tuple, rows))

    def encode(self, grid: Grid) -> Tokens:
        return np.array([CHARACTERS.index(str(c)) + 1 for row in grid for c in row], np.uint8)

    def decode(self, tokens: Tokens) -> Grid:
        known = range(1, len(CHARACTERS) + 1)
        cells = [CHARACTERS[t - 1] if t in known else OPEN for t in map(int, tokens)]
        starts = range(0, self.tokens, self.columns)
        return tuple(tuple(cells[start : start + self.columns]) for start in starts)

    def validate(self, grid: Grid) -> list[Problem]:
        problems = list(self._problems(grid))
        more = len(problems) - MAX_PROBLEMS
        if more > 0:
            problems = [*problems[:MAX_PROBLEMS], Problem(f"and {more} faults more")]
        return problems

    def verify(self, grid: Grid, answer: Grid) -> bool:
        if len(answer) != self.rows or any(len(row) != self.columns for row in answer):
            return False
        extends = all(
            cell == given or (cell, given) == (PATH, OPEN)
            for givens, cells in zip(grid, answer, strict=True)
            for given, cell in zip(givens, cells, strict=True)
        )
        if not extends:
            return False
        starts, goals = _places(answer, START), _places(answer, GOAL)
        if len(starts) != 1 or len(goals) != 1:
            return False
        marked = set(_places(answer, PATH))
        # A path of d steps has d − 1 cells between its ends: no mark is beside it.
        if _distance({*marked, *goals}, starts[0], goals[0]) != len(marked) + 1:
            return False
        return _distance(self._open(answer), starts[0], goals[0]) == len(marked) + 1

    def text(self, grid: Grid) -> str:
        """Rows joined by ``/`` (DESIGN section 5, Data)."""
        return "/".join("".join(map(str, row)) for row in grid)

    def _open(self, grid: Grid) -> set[Place]:
        return {(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell != WALL}

    def _problems(self, grid: Grid) -> Iterator[Problem]:
        if len(grid) != self.rows:
            yield Problem(f"{len(grid)} rows; a {self.size} maze has {self.rows}")
            return
        for r, row in enumerate(grid):
            if len(row) != self.columns:
                message = f"{len(row)} cells; the first row has {self.columns}"
                yield Problem(message, f"row {r + 1}")
            for c, cell in enumerate(row):
                if not isinstance(cell, str) or len(cell) != 1 or cell not in CHARACTERS:
                    message = f"{shown(cell)} is none of '#', ' ', 'S', 'G' and 'o'"
                    yield Problem(message, _words(r, c))
        for character, meaning in ((START, "start"), (GOAL, "goal")):
            found = _places(grid, character)
            if not found:
                yield Problem(f"there is no {character}, the {meaning}; a maze has one")
            for r, c in found[1:]:
                first = _words(*found[0])
                yield Problem(f"a second {character}; the first is at {first}", _words(r, c))


def _places(grid: Grid, character: str) -> list[Place]:
    return [(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == character]


def _words(row: int, column: int) -> str:
    return f"row {row + 1}, column {column + 1}"


def _distance(cells: Collection[Place], start: Place, goal: Place) -> int | None:
    """Fewest steps from `start` to `goal` through `cells`; None where there is no way."""
    steps = {start: 0}
    line = deque([start])
    while line:
        place = line.popleft()
        if place == goal:
            return steps[place]
        r, c = place
        for neighbour in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if neighbour in cells and neighbour not in steps:
                steps[neighbour] = steps[place] + 1
                line.append(neighbour)
    return None
