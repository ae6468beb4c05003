from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqr_core.tasks.base import Grid
from eqr_core.tasks.sudoku import BOXES, Sudoku
from tests.tasks.grids import SUDOKUS, Rows, pattern, puzzles, solved, tasks


def frozen(rows: Rows) -> Grid:
    return tuple(tuple(row) for row in rows)


@given(tasks().flatmap(lambda task: st.tuples(st.just(task), any_grid(task.n))))
def test_tokens_round_trip(case: tuple[Sudoku, Rows]) -> None:
    task, rows = case
    tokens = task.encode(frozen(rows))
    assert tokens.shape == (task.tokens,)
    assert tokens.min() >= task.blank_token
    assert tokens.max() < task.vocabulary
    assert task.decode(tokens) == frozen(rows)


def any_grid(n: int) -> st.SearchStrategy[Rows]:
    row = st.lists(st.integers(0, n), min_size=n, max_size=n)
    return st.lists(row, min_size=n, max_size=n)


def test_tokens_are_those_of_the_paper() -> None:
    tokens = Sudoku((2, 2)).encode(((0, 1, 2, 3), (4, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 4)))
    assert tokens.tolist() == [1, 2, 3, 4, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5]


def test_tokens_that_stand_for_no_digit_decode_to_blanks() -> None:
    task = Sudoku((2, 2))
    tokens = task.encode(frozen(pattern(task)))
    tokens[:4] = [0, 1, 6, 255]
    assert task.decode(tokens)[0] == (0, 0, 0, 0)


@pytest.mark.parametrize("task", SUDOKUS, ids=lambda task: task.size)
def test_the_layout_is_the_rules(task: Sudoku) -> None:
    """The groups that the layout leaves are the cells, rows, columns and boxes of the grid."""
    n, (height, width) = task.n, task.box
    candidates = np.arange(n**3).reshape(task.layout.axes)
    row, column, digit = (axis.ravel() for axis in np.indices((n, n, n)))
    rules = (
        row * n + column,
        row * n + digit,
        column * n + digit,
        (row // height * height + column // width) * n + digit,
    )
    assert len(task.layout.families) == len(rules) == len(task.layout.weights)
    for family, rule in zip(task.layout.families, rules, strict=True):
        last = range(-len(family), 0)
        groups = np.moveaxis(candidates, family, last).reshape(-1, n)
        assert len(groups) == n * n
        assert all(len(set(rule[group])) == 1 for group in groups)


@given(solved())
def test_a_solution_is_valid_and_verified(case: tuple[Sudoku, Rows]) -> None:
    task, solution = case
    assert task.validate(frozen(solution)) == []
    assert task.verify(frozen(solution), frozen(solution))
    assert task.verify(frozen([[0] * task.n] * task.n), frozen(solution))


@given(puzzles(), st.data())
def test_a_broken_cell_is_never_verified(
    case: tuple[Sudoku, Rows, Rows], data: st.DataObject
) -> None:
    task, puzzle, solution = case
    assert task.verify(frozen(puzzle), frozen(solution))
    r, c = data.draw(cell(task)), data.draw(cell(task))
    right = solution[r][c]
    solution[r][c] = data.draw(st.integers(0, task.n).filter(lambda digit: digit != right))
    assert not task.verify(frozen(puzzle), frozen(solution))


def cell(task: Sudoku) -> st.SearchStrategy[int]:
    return st.integers(0, task.n - 1)


@given(solved(), st.data())
def test_another_solution_does_not_answer_the_puzzle(
    case: tuple[Sudoku, Rows], data: st.DataObject
) -> None:
    task, solution = case
    a, b = data.draw(st.lists(st.integers(1, task.n), min_size=2, max_size=2, unique=True))
    swapped = [[{a: b, b: a}.get(digit, digit) for digit in row] for row in solution]
    clue = [[digit if digit == a else 0 for digit in row] for row in solution]
    assert task.verify(frozen(solution), frozen(solution))
    assert not task.verify(frozen(clue), frozen(swapped))


@pytest.mark.parametrize("task", SUDOKUS, ids=lambda task: task.size)
def test_rows_and_columns_alone_do_not_make_a_solution(task: Sudoku) -> None:
    """A cyclic Latin square breaks the boxes only."""
    n = task.n
    latin = [[(r + c) % n + 1 for c in range(n)] for r in range(n)]
    assert not task.verify(frozen([[0] * n] * n), frozen(latin))
    problems = task.validate(frozen(latin))
    assert problems
    assert all(problem.place.startswith("box ") for problem in problems)


@given(puzzles(), st.data())
def test_a_duplicate_is_named_with_its_places(
    case: tuple[Sudoku, Rows, Rows], data: st.DataObject
) -> None:
    """A second copy of a digit is put into a row, column or box that holds nothing else."""
    task, _, solution = case
    n, (height, width) = task.n, task.box
    kind = data.draw(st.sampled_from(["row", "column", "box"]))
    r, c = data.draw(cell(task)), data.draw(cell(task))
    others = [
        (i, j)
        for i in range(n)
        for j in range(n)
        if (i, j) != (r, c)
        and {
            "row": i == r,
            "column": j == c,
            "box": i // height == r // height and j // width == c // width,
        }[kind]
    ]
    i, j = data.draw(st.sampled_from(others))
    grid = [[0] * n for _ in range(n)]
    grid[r][c] = grid[i][j] = solution[r][c]
    number = {
        "row": r + 1,
        "column": c + 1,
        "box": r // height * (n // width) + c // width + 1,
    }[kind]
    problems = task.validate(frozen(grid))
    named = [problem for problem in problems if problem.place == f"{kind} {number}"]
    assert len(named) == 1
    assert named[0].message.startswith(f"{solution[r][c]} stands more than once")
    for row, column in ((r, c), (i, j)):
        assert f"row {row + 1}, column {column + 1}" in named[0].message


def test_faults_of_shape_and_cells_are_all_found() -> None:
    task = Sudoku((2, 2))
    assert [str(p) for p in task.validate(((0,) * 4,) * 3)] == ["3 rows; a 4x4 Sudoku has 4"]
    ragged = task.validate(((0,) * 4, (0,) * 5, (0,) * 4, ()))
    assert [p.place for p in ragged] == ["row 2", "row 4"]
    cells = task.validate(((0, 5, 0, 0), (0, 0, -1, 0), ("x", 0, 0, True), (0, 0, 0, 0)))
    assert [p.place for p in cells] == [
        "row 1, column 2",
        "row 2, column 3",
        "row 3, column 1",
        "row 3, column 4",
    ]


def test_digits_out_of_range_are_no_duplicates() -> None:
    problems = Sudoku((2, 2)).validate(((9, 0, 0, 9), (0,) * 4, (0,) * 4, (0,) * 4))
    assert [p.place for p in problems] == ["row 1, column 1", "row 1, column 4"]


def test_duplicates_are_found_beside_other_faults() -> None:
    problems = Sudoku((2, 2)).validate(((1, 9, 0, 1), (0,) * 4, (0,) * 4, (0,) * 4))
    assert [p.place for p in problems] == ["row 1, column 2", "row 1"]


def test_an_answer_of_another_shape_is_not_verified() -> None:
    task = Sudoku((2, 2))
    empty: Grid = ((0,) * 4,) * 4
    assert not task.verify(empty, frozen(pattern(Sudoku((2, 3)))))
    assert not task.verify(empty, ((1, 2, 3),) * 4)


def test_every_size_has_boxes_that_fill_it() -> None:
    assert {n: height * width for n, (height, width) in BOXES.items()} == {n: n for n in BOXES}
    assert [task.size for task in SUDOKUS] == ["4x4", "6x6", "9x9", "16x16"]
