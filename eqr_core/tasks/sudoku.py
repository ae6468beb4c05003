"""Sudoku with rectangular boxes: 4×4, 6×6, 9×9 and 16×16.

Tokens: 0 pad, 1 blank, digit d is d + 1 (REFERENCE: paper's Sudoku vocabulary).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeGuard

import numpy as np

from eqr_core.errors import Problem, shown
from eqr_core.tasks.base import ConstraintLayout, Grid, Task, Tokens

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3), 16: (4, 4)}
"""Rows and columns of a box, for each grid size."""

DIGITS = "123456789ABCDEFG"
BLANKS = ".0"

Cells = tuple[tuple[int, int], ...]
"""Rows and columns, from 0."""


@dataclass(frozen=True)
class Sudoku(Task):
    """An n×n Sudoku whose boxes have `box[0]` rows and `box[1]` columns, n = their product."""

    box: tuple[int, int] = (3, 3)

    name = "sudoku"
    blank_token = 1
    first_value_token = 2

    @property
    def n(self) -> int:
        """Side of the grid, and its number of digits."""
        return self.box[0] * self.box[1]

    @property
    def rows(self) -> int:  # type: ignore[override]
        return self.n

    @property
    def columns(self) -> int:  # type: ignore[override]
        return self.n

    @property
    def vocabulary(self) -> int:  # type: ignore[override]
        return self.n + 2

    @property
    def layout(self) -> ConstraintLayout:
        """Axes (bands, rows in a band, stacks, columns in a stack, digits).

        Families: a cell holds one digit; a row, a column, a box holds each digit once. Row and
        column are images of each other under transposition and share a projection.
        """
        height, width = self.box
        return ConstraintLayout(
            axes=(self.n // height, height, self.n // width, width, self.n),
            families=((4,), (2, 3), (0, 1), (1, 3)),
            weights=(0, 1, 1, 2),
        )

    @property
    def example(self) -> Grid:
        """Blanks alone."""
        return ((0,) * self.n,) * self.n

    def encode(self, grid: Grid) -> Tokens:
        return np.array([int(cell) + 1 for row in grid for cell in row], dtype=np.uint8)

    def decode(self, tokens: Tokens) -> Grid:
        digits = [int(token) - 1 if 2 <= token <= self.n + 1 else 0 for token in tokens]
        return tuple(tuple(digits[r * self.n : (r + 1) * self.n]) for r in range(self.n))

    def validate(self, grid: Grid) -> list[Problem]:
        return list(self._shape_problems(grid)) or [
            *self._cell_problems(grid),
            *(
                problem
                for unit, cells in units(self.box)
                for problem in self._duplicates(grid, unit, cells)
            ),
        ]

    def verify(self, grid: Grid, answer: Grid) -> bool:
        if len(answer) != self.n or any(len(row) != self.n for row in answer):
            return False
        extends = all(
            clue in (0, value)
            for clues, values in zip(grid, answer, strict=True)
            for clue, value in zip(clues, values, strict=True)
        )
        full = set(range(1, self.n + 1))
        return extends and all(
            {answer[r][c] for r, c in cells} == full for _, cells in units(self.box)
        )

    def text(self, grid: Grid) -> str:
        return "".join(DIGITS[int(cell) - 1] if cell else "." for row in grid for cell in row)

    def _shape_problems(self, grid: Grid) -> Iterator[Problem]:
        if len(grid) != self.n:
            yield Problem(f"{len(grid)} rows; a {self.size} Sudoku has {self.n}")
            return
        for r, row in enumerate(grid):
            if len(row) != self.n:
                yield Problem(f"{len(row)} cells; a {self.size} Sudoku has {self.n}", place(r))

    def _cell_problems(self, grid: Grid) -> Iterator[Problem]:
        n = self.n
        for r, row in enumerate(grid):
            for c, cell in enumerate(row):
                if not (is_integer(cell) and 0 <= cell <= n):
                    message = f"{shown(cell)} is not an integer from 1 to {n}, or 0 for a blank"
                    yield Problem(message, place(r, c))

    def _duplicates(self, grid: Grid, unit: str, cells: Cells) -> Iterator[Problem]:
        n = self.n
        held = [(x, r, c) for r, c in cells if is_integer(x := grid[r][c]) and 1 <= x <= n]
        digits = dict.fromkeys(digit for digit, _, _ in held)
        if len(digits) == len(held):
            return
        for digit in digits:
            found = [place(r, c) for x, r, c in held if x == digit]
            if len(found) > 1:
                yield Problem(f"{digit} stands more than once: at {' and at '.join(found)}", unit)


@cache
def units(box: tuple[int, int]) -> tuple[tuple[str, Cells], ...]:
    """Rows, columns and boxes of the Sudoku with boxes of `box`: names and cells."""
    height, width = box
    n = height * width
    rows = [(f"row {r + 1}", tuple((r, c) for c in range(n))) for r in range(n)]
    columns = [(f"column {c + 1}", tuple((r, c) for r in range(n))) for c in range(n)]
    corners = [(top, left) for top in range(0, n, height) for left in range(0, n, width)]
    boxes = [
        (f"box {number}", tuple((top + r, left + c) for r in range(height) for c in range(width)))
        for number, (top, left) in enumerate(corners, start=1)
    ]
    return (*rows, *columns, *boxes)


def place(row: int, column: int | None = None) -> str:
    """Where a problem is, in words; `row` and `column` count from 0, the words from 1."""
    return f"row {row + 1}" if column is None else f"row {row + 1}, column {column + 1}"


def is_integer(cell: object) -> TypeGuard[int]:
    """Whether `cell` is an int proper: True and False are no digits."""
    return isinstance(cell, int) and not isinstance(cell, bool)
