"""Mazes as users write them: rows of characters, or one text with ``/`` or new lines between."""

from __future__ import annotations

from collections.abc import Sequence

from eqr_core.errors import GridError, ModelError, Problem, shown
from eqr_core.tasks.base import Cell, Family, Grid, Task
from eqr_core.tasks.maze import CHARACTERS, MAX_SIDE, Maze

MAX_LENGTH = (MAX_SIDE + 2) * MAX_SIDE
"""Of a grid's text, the ends of its lines included; longer ones are not even read."""


def recognises(raw: object) -> bool:
    """Whether most of what stands in `raw`, blanks aside, are a maze's characters."""
    if isinstance(raw, list | tuple):
        rows = raw[:MAX_SIDE]
        parts = [cell for row in rows if isinstance(row, list | tuple) for cell in row[:MAX_SIDE]]
        parts += [row for row in rows if isinstance(row, str)]
        text = "".join(part[:MAX_SIDE] for part in parts if isinstance(part, str))
    elif isinstance(raw, str):
        text = raw[:MAX_LENGTH]
    else:
        return False
    marks = [character for character in text if not character.isspace() and character != "/"]
    ours = sum(character in CHARACTERS for character in marks)
    return 2 * ours > len(marks)


def maze_at(rows: int, columns: int) -> Maze:
    """The maze with so many rows and columns; ModelError where there is none."""
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE) or rows * columns < 2:
        raise ModelError(
            f"there is no {rows}x{columns} maze; a side has 1 to {MAX_SIDE} cells, both together "
            "2 at least"
        )
    return Maze(rows, columns)


def parse_maze(raw: object) -> tuple[Task, Grid]:
    """Task and valid grid of `raw`; GridError with every fault and its place.

    `raw` is a list of rows, each a string or a list of characters, or one string with ``/`` or
    a new line between its rows; new lines before and after them mean nothing, spaces are cells.
    """
    rows = _split(raw) if isinstance(raw, str) else raw
    if not isinstance(rows, list | tuple):
        raise _fault(f"a maze is rows of characters, not {shown(raw)}")
    if not 1 <= len(rows) <= MAX_SIDE:
        raise _fault(f"{len(rows)} rows; a maze has 1 to {MAX_SIDE}")
    grid = tuple(_cells(number, row) for number, row in enumerate(rows))
    columns = len(grid[0])
    if not 1 <= columns <= MAX_SIDE:
        raise _fault(f"{columns} cells; a row has 1 to {MAX_SIDE}", "row 1")
    if len(grid) * columns < 2:
        raise _fault("1 cell; a maze has 2 at least, for S and G")
    task = maze_at(len(grid), columns)
    problems = task.validate(grid)
    if problems:
        raise GridError(problems)
    return task, grid


def _split(text: str) -> Sequence[str]:
    if len(text) > MAX_LENGTH:
        raise _fault(f"{len(text)} characters; a maze's text has at most {MAX_LENGTH}")
    return text.replace("\r\n", "\n").strip("\n").replace("\n", "/").split("/")


def _cells(number: int, row: object) -> tuple[Cell, ...]:
    place = f"row {number + 1}"
    if not isinstance(row, str | list | tuple):
        raise _fault(f"a row is a string or a list of characters, not {shown(row)}", place)
    if len(row) > MAX_SIDE:
        raise _fault(f"{len(row)} cells; a row has 1 to {MAX_SIDE}", place)
    return tuple(row)


def _fault(message: str, where: str = "") -> GridError:
    return GridError([Problem(message, where)])


FAMILY = Family(name="maze", recognises=recognises, at=maze_at, parse=parse_maze)
