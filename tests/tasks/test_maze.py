from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqr_core.errors import GridError, ModelError
from eqr_core.tasks import TASK_NAMES, parse_grid, task_at
from eqr_core.tasks.base import Grid
from eqr_core.tasks.maze import MAX_PROBLEMS, MAX_SIDE, Maze, Place
from eqr_core.tasks.sudoku import Sudoku

QUESTION = ["#######", "#S    #", "# ### #", "#   #G#", "#######"]
ANSWER = ["#######", "#Soooo#", "# ###o#", "#   #G#", "#######"]


def grid_of(rows: list[str]) -> Grid:
    return tuple(map(tuple, rows))


@st.composite
def mazes(draw: st.DrawFn) -> Grid:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(2, 6))
    cells = draw(st.lists(st.sampled_from("#  "), min_size=rows * columns, max_size=rows * columns))
    first, second = draw(st.permutations(range(rows * columns)))[:2]
    cells[first], cells[second] = "S", "G"
    return tuple(tuple(cells[r * columns : (r + 1) * columns]) for r in range(rows))


def shortest_paths(grid: Grid) -> list[frozenset[Place]]:
    """All shortest paths, by walking every way: the cells between S and G of each."""
    cells = {(r, c): v for r, row in enumerate(grid) for c, v in enumerate(row) if v != "#"}
    start = next(place for place, v in cells.items() if v == "S")
    line: deque[tuple[Place, tuple[Place, ...]]] = deque([(start, (start,))])
    found: list[frozenset[Place]] = []
    length = len(cells) + 1
    while line:
        (r, c), path = line.popleft()
        if len(path) > length:
            break
        if cells[r, c] == "G":
            length = len(path)
            found.append(frozenset(path[1:-1]))
        for place in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if place in cells and place not in path:
                line.append((place, (*path, place)))
    return found


@given(mazes())
def test_all_forms_give_the_same_grid(grid: Grid) -> None:
    lines = ["".join(map(str, row)) for row in grid]
    task = Maze(len(grid), len(grid[0]))
    assert task.text(grid) == "/".join(lines)
    for raw in (
        lines,
        tuple(lines),
        [list(line) for line in lines],
        "/".join(lines),
        "\n".join(lines) + "\n",
        "\r\n".join(lines) + "\r\n",
    ):
        assert parse_grid(raw) == (task, grid)
        assert parse_grid(raw, "maze") == (task, grid)
    assert task.decode(task.encode(grid)) == grid


@given(mazes(), st.data())
def test_only_a_shortest_path_is_verified(grid: Grid, data: st.DataObject) -> None:
    task = Maze(len(grid), len(grid[0]))
    paths = shortest_paths(grid)
    free = [(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell == " "]
    drawn = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    for marks in (*paths[:3], *(path ^ set(drawn) for path in paths[:3]), frozenset(drawn)):
        answer = tuple(
            tuple("o" if (r, c) in marks and cell == " " else cell for c, cell in enumerate(row))
            for r, row in enumerate(grid)
        )
        assert task.verify(grid, answer) == (marks & set(free) in paths)


def test_an_answer_changes_nothing_else() -> None:
    task, question, answer = Maze(5, 7), grid_of(QUESTION), grid_of(ANSWER)
    assert task.verify(question, answer)
    assert task.verify(answer, answer)
    assert not task.verify(question, question)
    for r in range(5):
        for c in range(7):
            for cell in "# SGo":
                if cell != answer[r][c]:
                    changed = [list(row) for row in answer]
                    changed[r][c] = cell
                    assert not task.verify(question, tuple(map(tuple, changed)))
    assert not task.verify(question, answer[:4])
    assert not task.verify(question, tuple(row[:6] for row in answer))


def test_marks_of_the_input_must_lie_on_the_path() -> None:
    task, answer = Maze(3, 3), grid_of(["Soo", "  o", "  G"])
    assert task.verify(grid_of(["S o", "   ", "  G"]), answer)
    assert not task.verify(grid_of(["S o", "o  ", "  G"]), answer)


def test_a_goal_that_is_walled_off_is_an_input_without_an_answer() -> None:
    task, grid = parse_grid(["S#G"])
    assert not task.verify(grid, grid)


def test_neighbours_need_no_path() -> None:
    task, grid = parse_grid("SG")
    assert task.verify(grid, grid)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (["#  ", " G "], "there is no S, the start; a maze has one"),
        (["#S ", "   "], "there is no G, the goal; a maze has one"),
        (["#  ", "   "], "no S, the start; a maze has one; there is no G"),
        (["#SS", "SG "], "row 1, column 3: a second S; the first is at row 1, column 2; row 2, co"),
        (["#SG", "G  "], "row 2, column 1: a second G; the first is at row 1, column 3"),
        (["#SG", "#"], "row 2: 1 cells; the first row has 3"),
        (["#SG", "#   "], "row 2: 4 cells; the first row has 3"),
        (["#SG", ""], "row 2: 0 cells; the first row has 3"),
        (["#SGx", "#.##"], "row 1, column 4: 'x' is none of '#', ' ', 'S', 'G' and 'o'; row 2, co"),
        ("###/#S?/##G", "row 2, column 3: '?' is none of"),
        ([["#", "S", 7], ["#", "G", "##"]], "row 1, column 3: 7 is none of"),
        ([["#", "S", 7], ["#", "G", "##"]], "row 2, column 3: '##' is none of"),
        (["#SG", None], "row 2: a row is a string or a list of characters, not None"),
        (["#" * (MAX_SIDE + 1)], "row 1: 257 cells; a row has 1 to 256"),
        (["S#"] * (MAX_SIDE + 1), "257 rows; a maze has 1 to 256"),
        ("S#" * 40_000, "80000 characters; a maze's text has at most"),
        (["S"], "1 cell; a maze has 2 at least"),
    ],
)
def test_every_fault_is_named_with_its_place(raw: object, message: str) -> None:
    with pytest.raises(GridError) as caught:
        parse_grid(raw)
    assert message in str(caught.value)
    assert "Sudoku" not in str(caught.value)


@pytest.mark.parametrize("raw", [5, None, {"rows": []}, "", [], [""], "1...", [[1, 0], [0, 0]]])
def test_what_is_no_maze_is_refused_where_one_is_asked_for(raw: Any) -> None:
    with pytest.raises(GridError):
        parse_grid(raw, "maze")


def test_many_faults_are_counted() -> None:
    with pytest.raises(GridError) as caught:
        parse_grid(["x" * 30] * 30, "maze")
    assert len(caught.value.problems) == MAX_PROBLEMS + 1
    assert "and 802 faults more" in str(caught.value)


@pytest.mark.parametrize("raw", ["1... ..3. .4.. ...2", "." * 80 + "S", ["G" + "." * 15] * 16])
def test_a_sudoku_stays_one(raw: object) -> None:
    try:
        task, _ = parse_grid(raw)
    except GridError as error:
        assert "none of '#'" not in str(error)
    else:
        assert isinstance(task, Sudoku)


def test_tokens_are_the_papers() -> None:
    task = task_at("maze", 1, 5)
    assert task.encode((tuple("# SGo"),)).tolist() == [1, 2, 3, 4, 5]
    assert task.vocabulary == 6
    pad = np.array([0, 6, 3, 4, 5], np.uint8)
    assert task.decode(pad) == (tuple("  SGo"),)


def test_sizes_that_there_are_not() -> None:
    assert "maze" in TASK_NAMES
    for rows, columns in ((0, 5), (5, MAX_SIDE + 1), (1, 1)):
        with pytest.raises(ModelError, match=f"{rows}x{columns} maze"):
            task_at("maze", rows, columns)


@pytest.mark.parametrize("task", [Maze(1, 2), Maze(2, 1), Maze(7, 4), Sudoku((2, 2))])
def test_the_example_may_be_solved(task: Maze | Sudoku) -> None:
    assert not task.validate(task.example)
    assert parse_grid(task.text(task.example)) == (task, task.example)
