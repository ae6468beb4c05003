from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqr_core.errors import GridError, ModelError
from eqr_core.tasks import TASK_NAMES, parse_grid, task_at
from eqr_core.tasks.sudoku import Sudoku
from tests.tasks.grids import Rows, puzzles

EMPTY = [[0] * 9 for _ in range(9)]


def with_cell(row: int, column: int, cell: object) -> list[list[Any]]:
    rows: list[list[Any]] = [list(line) for line in EMPTY]
    rows[row][column] = cell
    return rows


@given(puzzles())
def test_all_forms_give_the_same_grid(case: tuple[Sudoku, Rows, Rows]) -> None:
    task, puzzle, _ = case
    grid = tuple(tuple(row) for row in puzzle)
    text = task.text(grid)
    lines = [text[start : start + task.n] for start in range(0, len(text), task.n)]
    for raw in (
        puzzle,
        grid,
        text,
        text.replace(".", "0"),
        "\n".join(lines) + "\n",
        " ".join(text),
        lines,
        tuple(lines),
        [f" {line[:2]} {line[2:]}\t" for line in lines],
        [list(np.array(row)) for row in puzzle],
    ):
        assert parse_grid(raw) == (task, grid)
        assert parse_grid(raw, "sudoku") == (task, grid)


@given(puzzles())
def test_cells_are_plain_integers(case: tuple[Sudoku, Rows, Rows]) -> None:
    _, puzzle, _ = case
    _, grid = parse_grid([list(np.array(row)) for row in puzzle])
    assert {type(cell) for row in grid for cell in row} == {int}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([[0] * 9] * 8, "8 rows; a Sudoku has 4, 6, 9 or 16"),
        ([], "0 rows; a Sudoku has 4, 6, 9 or 16"),
        ("", "0 cells; a Sudoku has 16 (4x4), 36 (6x6), 81 (9x9) or 256 (16x16)"),
        ("." * 80, "80 cells; a Sudoku has 16 (4x4), 36 (6x6), 81 (9x9) or 256 (16x16)"),
        ([[0] * 9] * 8 + [[0] * 8], "row 9: 8 cells; a 9x9 Sudoku has 9"),
        ([[0] * 9] * 8 + [[0] * 10], "row 9: 10 cells; a 9x9 Sudoku has 9"),
        (["." * 9] * 8 + ["." * 8], "row 9: 8 cells; a 9x9 Sudoku has 9"),
        ([[0] * 16] * 9, "row 1: 16 cells; a 9x9 Sudoku has 9"),
        (
            with_cell(2, 4, 10),
            "row 3, column 5: 10 is not an integer from 1 to 9, or 0 for a blank",
        ),
        (with_cell(2, 4, -1), "row 3, column 5: -1 is not an integer"),
        (with_cell(8, 0, 5.0), "row 9, column 1: 5.0 is not an integer"),
        (with_cell(0, 8, float("nan")), "row 1, column 9: nan is not an integer"),
        (with_cell(0, 0, None), "row 1, column 1: None is not an integer"),
        (with_cell(0, 0, True), "row 1, column 1: True is not an integer"),
        (with_cell(0, 0, "5"), "row 1, column 1: '5' is not an integer"),
        (with_cell(0, 0, [5]), "row 1, column 1: a value of type list is not an integer"),
        (with_cell(0, 0, 10**5000), "row 1, column 1: an integer of more than 20 digits"),
        ("." * 40 + "x" + "." * 40, "row 5, column 5: 'x' is not an integer"),
        ("." * 40 + "٣" + "." * 40, "row 5, column 5: '٣' is not an integer"),
        ("." * 40 + "A" + "." * 40, "row 5, column 5: 10 is not an integer from 1 to 9"),
        ("." * 255 + "H", "row 16, column 16: 'H' is not an integer from 1 to 16"),
        ([*EMPTY[:8], 5], "row 9: a row is a list of integers or a string, not 5"),
        ([*EMPTY[:8], {}], "row 9: a row is a list of integers or a string, not a value of type"),
        (None, "a grid is rows of integers or a string of digits, not None"),
        (5, "a grid is rows of integers or a string of digits, not 5"),
        ({"grid": []}, "a grid is rows of integers or a string of digits, not a value of type"),
        (b"." * 81, "a grid is rows of integers or a string of digits, not a value of type bytes"),
    ],
)
def test_a_fault_is_named_with_its_place(raw: object, message: str) -> None:
    with pytest.raises(GridError) as caught:
        parse_grid(raw)
    assert str(caught.value).startswith(message)
    assert len(caught.value.problems) >= 1


@pytest.mark.parametrize(
    ("clues", "place"),
    [
        ({(1, 0): 7, (1, 8): 7}, "row 2"),
        ({(0, 3): 7, (8, 3): 7}, "column 4"),
        ({(3, 6): 7, (5, 8): 7}, "box 6"),
    ],
)
def test_a_duplicate_clue_is_refused(clues: dict[tuple[int, int], int], place: str) -> None:
    rows = [list(row) for row in EMPTY]
    for (row, column), digit in clues.items():
        rows[row][column] = digit
    with pytest.raises(GridError) as caught:
        parse_grid(rows)
    assert [problem.place for problem in caught.value.problems] == [place]


def test_all_faults_are_listed() -> None:
    rows = with_cell(0, 0, 12)
    rows[4][4] = "x"
    rows[8][0] = rows[8][8] = 3
    with pytest.raises(GridError) as caught:
        parse_grid(rows)
    places = [problem.place for problem in caught.value.problems]
    assert places == ["row 1, column 1", "row 5, column 5", "row 9"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("." * 10_000_000, "10000000 characters; a grid's text has at most 4096"),
        (" " * 10_000_000, "10000000 characters; a grid's text has at most 4096"),
        ([[0] * 9] * 1_000_000, "1000000 rows; a Sudoku has 4, 6, 9 or 16"),
        ([*EMPTY[:8], [0] * 1_000_000], "row 9: a row of length 1000000; the limit is 4096"),
        ([*EMPTY[:8], "." * 10_000_000], "row 9: a row of length 10000000; the limit is 4096"),
    ],
    ids=["text", "spaces", "rows", "cells", "row text"],
)
def test_absurd_sizes_are_refused_unread(raw: object, message: str) -> None:
    with pytest.raises(GridError) as caught:
        parse_grid(raw)
    assert str(caught.value) == message


def test_a_message_stays_short_whatever_the_cells() -> None:
    with pytest.raises(GridError) as caught:
        parse_grid([["x" * 100_000] * 9] * 9)
    assert len(caught.value.problems) == 81
    assert all(len(str(problem)) < 200 for problem in caught.value.problems)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=2), inner),
)


@given(junk | st.lists(junk, min_size=4, max_size=4))
def test_junk_is_a_grid_error_and_nothing_else(raw: object) -> None:
    with pytest.raises(GridError):
        parse_grid(raw)


def test_an_unknown_task_names_those_there_are() -> None:
    assert TASK_NAMES == ("maze", "sudoku")
    for name in ("chess", "Sudoku", ""):
        with pytest.raises(ModelError, match="there is maze, sudoku"):
            parse_grid(EMPTY, name)
        with pytest.raises(ModelError, match="there is maze, sudoku"):
            task_at(name, 9, 9)


def test_task_at_gives_every_size() -> None:
    for n in (4, 6, 9, 16):
        task = task_at("sudoku", n, n)
        assert (task.rows, task.columns, task.size) == (n, n, f"{n}x{n}")
    for rows, columns in ((9, 6), (5, 5), (0, 0), (-4, -4)):
        with pytest.raises(ModelError, match="4x4, 6x6, 9x9 or 16x16"):
            task_at("sudoku", rows, columns)
