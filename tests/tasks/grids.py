"""Solved Sudoku grids of every size, made by symmetries of one pattern."""

from __future__ import annotations

from hypothesis import strategies as st

from eqr_core.tasks.sudoku import BOXES, Sudoku

Rows = list[list[int]]

SUDOKUS = [Sudoku(box) for box in BOXES.values()]


def pattern(task: Sudoku) -> Rows:
    """The solved grid whose rows are shifts of 1…n, box height by box height."""
    height, width = task.box
    n = task.n
    return [[(r % height * width + r // height + c) % n + 1 for c in range(n)] for r in range(n)]


@st.composite
def tasks(draw: st.DrawFn) -> Sudoku:
    return draw(st.sampled_from(SUDOKUS))


@st.composite
def solved(draw: st.DrawFn) -> tuple[Sudoku, Rows]:
    """A task and a solved grid: digits, bands, stacks, rows and columns are permuted."""
    task = draw(tasks())
    height, width = task.box
    digits = draw(st.permutations(range(1, task.n + 1)))
    rows = draw(_lines(task.n, height))
    columns = draw(_lines(task.n, width))
    start = pattern(task)
    return task, [[digits[start[r][c] - 1] for c in columns] for r in rows]


@st.composite
def puzzles(draw: st.DrawFn) -> tuple[Sudoku, Rows, Rows]:
    """A task, a puzzle and a solution of it; each cell is a clue or a blank by chance."""
    task, solution = draw(solved())
    clue = draw(st.lists(st.booleans(), min_size=task.n**2, max_size=task.n**2))
    puzzle = [
        [solution[r][c] if clue[r * task.n + c] else 0 for c in range(task.n)]
        for r in range(task.n)
    ]
    return task, puzzle, solution


@st.composite
def _lines(draw: st.DrawFn, n: int, group: int) -> list[int]:
    """Order of n rows or columns that keeps the groups of `group` neighbours together."""
    groups = draw(st.permutations(range(n // group)))
    return [
        first * group + line for first in groups for line in draw(st.permutations(range(group)))
    ]
