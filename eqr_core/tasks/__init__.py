"""The tasks there are, found by name or from the grid itself.

A new task is a module with a `Family`, and its name in FAMILIES.
"""

from __future__ import annotations

from eqr_core.errors import ModelError, shown
from eqr_core.tasks import maze_parser, sudoku_parser
from eqr_core.tasks.base import Family, Grid, Task

FAMILIES: tuple[Family, ...] = (maze_parser.FAMILY, sudoku_parser.FAMILY)
"""Asked in this order whose a grid is; Sudoku takes what nobody claims and stands last."""

TASK_NAMES: tuple[str, ...] = tuple(family.name for family in FAMILIES)


def parse_grid(raw: object, task: str | None = None) -> tuple[Task, Grid]:
    """The task and the grid of what a user wrote, checked against the task's rules.

    Without `task` the grid's own form decides. GridError lists every fault with its place;
    ModelError for an unknown task.

    >>> task, grid = parse_grid("1... .... .... ...4")
    >>> task.size, grid[0]
    ('4x4', (1, 0, 0, 0))
    """
    if task is not None:
        return _family(task).parse(raw)
    return family_of(raw).parse(raw)


def family_of(raw: object) -> Family:
    """The family whose grid `raw` looks like."""
    return next(family for family in FAMILIES if family.recognises(raw))


def task_at(name: str, rows: int, columns: int) -> Task:
    """Task `name` with so many rows and columns; ModelError where there is none."""
    return _family(name).at(rows, columns)


def _family(name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ModelError(f"unknown task {shown(name)}; there is {', '.join(TASK_NAMES)}")
