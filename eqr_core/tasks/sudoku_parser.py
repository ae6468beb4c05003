"""Sudoku grids as users write them: rows of integers, one string of digits, or rows of digits."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from eqr_core.errors import GridError, ModelError, Problem, shown
from eqr_core.tasks.base import Cell, Family, Grid, Task
from eqr_core.tasks.sudoku import BLANKS, BOXES, DIGITS, Sudoku, place

MAX_LENGTH = 4096
"""Of a grid's text or a row as written, white space included; longer ones are not even read."""

VALUES: dict[str, int] = {
    **dict.fromkeys(BLANKS, 0),
    **{digit: value for value, digit in enumerate(DIGITS, start=1)},
}

SIDES = {n * n: n for n in BOXES}
"""Side of a grid, for each number of cells."""


def recognises(raw: object) -> bool:
    """Sudoku is the task of every grid that no other task claims."""
    return True


def sudoku_at(rows: int, columns: int) -> Sudoku:
    """The Sudoku with so many rows and columns; ModelError where there is none."""
    if rows != columns or rows not in BOXES:
        known = _either(f"{n}x{n}" for n in BOXES)
        raise ModelError(f"there is no {rows}x{columns} Sudoku, only {known}")
    return Sudoku(BOXES[rows])


def parse_sudoku(raw: object) -> tuple[Task, Grid]:
    """Task and valid grid of `raw`; GridError with every fault and its place.

    `raw` is a list of rows, each a list of integers (0 for a blank) or a string, or one string.
    A string has a character a cell: a digit, ``A`` to ``G`` for 10 to 16, ``.`` or ``0`` for a
    blank; white space means nothing. The size follows from the number of rows or characters.
    """
    rows = _split(raw) if isinstance(raw, str) else raw
    if not isinstance(rows, list | tuple):
        raise _fault(f"a grid is rows of integers or a string of digits, not {shown(raw)}")
    if len(rows) not in BOXES:
        raise _fault(f"{len(rows)} rows; a Sudoku has {_either(map(str, BOXES))}")
    task = sudoku_at(len(rows), len(rows))
    # A cell that is no integer goes in as it is: `validate` says so, with its place.
    grid: Grid = tuple(_cells(number, row) for number, row in enumerate(rows))
    problems = task.validate(grid)
    if problems:
        raise GridError(problems)
    return task, grid


def _split(text: str) -> list[str]:
    if len(text) > MAX_LENGTH:
        raise _fault(f"{len(text)} characters; a grid's text has at most {MAX_LENGTH}")
    characters = "".join(text.split())
    if len(characters) not in SIDES:
        known = _either(f"{count} ({n}x{n})" for count, n in SIDES.items())
        raise _fault(f"{len(characters)} cells; a Sudoku has {known}")
    n = SIDES[len(characters)]
    return [characters[start : start + n] for start in range(0, n * n, n)]


def _cells(number: int, row: object) -> tuple[Cell, ...]:
    if not isinstance(row, str | list | tuple):
        raise _fault(f"a row is a list of integers or a string, not {shown(row)}", place(number))
    if len(row) > MAX_LENGTH:
        raise _fault(f"a row of length {len(row)}; the limit is {MAX_LENGTH}", place(number))
    if isinstance(row, str):
        return tuple(VALUES.get(char, char) for char in "".join(row.split()))
    return tuple(_plain(cell) for cell in row)


def _plain(cell: Any) -> Cell:
    """`cell`, an int where it is an integer of another library."""
    return int(cell) if isinstance(cell, Integral) and not isinstance(cell, bool) else cell


def _either(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}"


def _fault(message: str, where: str = "") -> GridError:
    return GridError([Problem(message, where)])


FAMILY = Family(name="sudoku", recognises=recognises, at=sudoku_at, parse=parse_sudoku)
