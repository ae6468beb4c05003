from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eqr_core.cli import app
from eqr_core.data.check import check_file, check_pair
from eqr_core.data.equivalence import grid_keys, puzzle_keys, split_apart, without_relatives
from eqr_core.data.forms import form_of
from eqr_core.data.maze_symmetry import exchanged, places
from eqr_core.data.mazes import WantedMazes
from eqr_core.data.packed import PackedPuzzles, join, load, pack, unpack
from eqr_core.data.puzzles import PuzzleRow, read_puzzles, write_puzzles
from eqr_core.data.units import first_rows, puzzle_stream
from eqr_core.errors import DataError
from eqr_core.tasks import parse_grid
from eqr_core.tasks.maze import Maze
from tests.tasks.test_maze import shortest_paths

WANTED = (
    WantedMazes(5, 7),
    WantedMazes(9, 9),
    WantedMazes(12, 7, "perfect", 3),
    WantedMazes(6, 9, "walls", 1),
    WantedMazes(10, 10, "walls", 0, 8, 8),
)


def made(wanted: WantedMazes, count: int) -> PackedPuzzles:
    return pack(first_rows(wanted, count))


def images(puzzles: PackedPuzzles) -> PackedPuzzles:
    """Every maze turned by half a turn, its S and G exchanged."""
    order = list(places(puzzles.task.rows, puzzles.task.columns))[3]
    question, answer = (
        exchanged()[np.ascontiguousarray(tokens[:, order])]
        for tokens in (puzzles.question, puzzles.answer)
    )
    return PackedPuzzles(
        question, answer, puzzles.rating, puzzles.source, puzzles.sources, puzzles.task
    )


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_every_maze_has_one_shortest_path_of_a_length_asked_for(wanted: WantedMazes) -> None:
    low, high = wanted.paths
    for row in first_rows(wanted, 12):
        task, grid = parse_grid(row.question)
        _, answer = parse_grid(row.answer)
        assert (task.rows, task.columns) == (wanted.rows, wanted.columns)
        assert task.verify(grid, answer)
        (path,) = shortest_paths(grid)
        assert low <= row.rating == len(path) + 1 <= high
        assert row.source == f"{wanted.kind}_{task.size}"
        if wanted.kind == "perfect":
            cells = {(r, c) for r, line in enumerate(grid) for c, v in enumerate(line) if v != "#"}
            joins = sum((r + 1, c) in cells for r, c in cells)
            joins += sum((r, c + 1) in cells for r, c in cells)
            assert joins == len(cells) - 1, "a tree"
            rooms = (wanted.rows - 1) // 2 * ((wanted.columns - 1) // 2)
            assert len(cells) == 2 * rooms - 1


def test_lengths_are_even_and_an_even_side_has_its_spare_wall_on_either_end() -> None:
    rows = list(first_rows(WantedMazes(10, 10, min_path=5, max_path=14), 400))
    counts = np.bincount([row.rating for row in rows], minlength=15)[5:]
    assert len(counts) == 10
    assert counts.min() > 20
    first = sum(row.question.split("/")[1] == "#" * 10 for row in rows)
    last = sum(row.question.split("/")[-2] == "#" * 10 for row in rows)
    assert first + last == 400
    assert 150 < first < 250


@pytest.mark.parametrize("wanted", [WANTED[1], WANTED[3]], ids=str)
def test_the_rows_do_not_depend_on_the_number_of_processes(wanted: WantedMazes) -> None:
    alone = list(first_rows(wanted, 150))
    assert list(first_rows(wanted, 150, workers=3)) == alone
    assert list(first_rows(wanted, 20)) == alone[:20]
    other = WantedMazes(wanted.rows, wanted.columns, wanted.kind, wanted.seed + 1)
    assert list(first_rows(other, 20)) != alone[:20]


def test_no_two_of_a_stream_are_alike() -> None:
    puzzles = made(WANTED[1], 300)
    for keys in (grid_keys(puzzles), puzzle_keys(puzzles)):
        assert keys is not None
        assert len(set(keys)) == 300


def test_a_stream_ends_where_there_are_no_more() -> None:
    stream = puzzle_stream(WantedMazes(3, 5, min_path=1, max_path=2))
    rows: list[PuzzleRow] = []
    with pytest.raises(DataError, match=r"found 2 different 3x5 perfect mazes .* and no more"):
        rows.extend(islice(stream, 1000))
        raise AssertionError(f"{len(rows)} rows of 3x5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 9), "rows is 2; it must be from 3 to 256"),
        ((9, 257), "columns is 257"),
        ((3, 3), "the longer side must be 5"),
        ((9, 9, "spiral"), "kind is 'spiral'; it must be perfect or walls"),
        ((9, 9, "walls", -1), "seed is -1"),
        ((9, 9, "walls", 0, 0, 5), "min_path is 0"),
        ((9, 9, "walls", 0, 5, 82), "max_path is 82; it must be from 1 to 81"),
        ((9, 9, "walls", 0, 7, 5), "min_path is 7; max_path is 5, which is less"),
    ],
)
def test_wishes_that_cannot_be(arguments: tuple[int, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        WantedMazes(*arguments)


def test_a_length_that_no_maze_has_is_told() -> None:
    with pytest.raises(DataError, match="of 2000 tried none has one shortest path of 40"):
        next(first_rows(WantedMazes(7, 7, min_path=40, max_path=40), 1))


def test_symmetries_keep_what_a_maze_is() -> None:
    assert len({tuple(order) for order in places(5, 5)}) == 8
    assert len({tuple(order) for order in places(4, 5)}) == 4
    for wanted in WANTED:
        puzzles = made(wanted, 5)
        task = puzzles.task
        for order in places(task.rows, task.columns):
            question, answer = puzzles.question[:, order], puzzles.answer[:, order]
            assert not form_of("maze").broken(task, question, answer).any()
        other = images(puzzles)
        assert not form_of("maze").broken(task, other.question, other.answer).any()
        for keys in (grid_keys, puzzle_keys):
            np.testing.assert_array_equal(keys(puzzles), keys(other))


def test_symmetric_copies_stay_on_one_side() -> None:
    puzzles = made(WANTED[1], 40)
    both = join([puzzles, images(puzzles)])
    rest, held = split_apart(both, 20, seed=1)
    assert (len(rest), len(held)) == (60, 20)
    assert not set(grid_keys(rest)) & set(grid_keys(held))  # type: ignore[arg-type]
    assert len(without_relatives(images(puzzles), puzzles.take(np.arange(10)))) == 30


def test_files_keep_mazes_of_any_shape(tmp_path: Path) -> None:
    rows = list(first_rows(WANTED[2], 20))
    puzzles = pack(rows)
    assert puzzles.task == Maze(12, 7)
    assert list(unpack(puzzles)) == rows
    puzzles.save(tmp_path / "mazes.npz")
    again = load(tmp_path / "mazes.npz")
    assert (again.digest, again.task) == (puzzles.digest, puzzles.task)
    write_puzzles(tmp_path / "mazes.csv.gz", rows)
    assert list(read_puzzles(tmp_path / "mazes.csv.gz")) == rows


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("S G/  #", "SoG/ #", "the answer is not 2x3"),
        ("S G", "SoG", "the question is not 2x3"),
        ("S G/ x#", "SoG/  #", "'x' stands in the question"),
        ("S S/  G", "S S/ oG", "question has not exactly one S"),
        ("S G/  #", "SoG/## ", "changes more"),
        ("S G/  #", "S G/  #", "breaks the rules"),
        ("S G/  #", "SoG/o #", "breaks the rules"),
    ],
)
def test_bad_rows_are_named(question: str, answer: str, message: str) -> None:
    good = PuzzleRow("x", "S G/  #", "SoG/  #", 2)
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        pack([good, PuzzleRow("x", question, answer, 2)])


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["chess", "5", "7"], "unknown task 'chess'"),
        (["maze", "5"], "it must be a name, rows and columns"),
        (["maze", "-5", "-7"], "it must be a name, rows and columns"),
        (["maze", "5", "8"], "grids of 35 cells; maze 5x8 has others"),
        (["maze", "7", "5"], "answer 1 does not solve its question"),
    ],
)
def test_packed_files_that_say_they_are_another_task(
    tmp_path: Path, named: list[str], message: str
) -> None:
    puzzles = made(WANTED[0], 10)
    arrays = {n: getattr(puzzles, n) for n in ("question", "answer", "rating", "source")}
    np.savez(tmp_path / "p.npz", sources=puzzles.sources, task=np.array(named), **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "p.npz")


def test_a_check_counts_what_is_wrong(tmp_path: Path) -> None:
    rows = list(first_rows(WANTED[1], 10))
    puzzles = pack(rows)
    turned = list(unpack(images(puzzles.take(np.arange(2)))))
    two_ways = PuzzleRow("x", "S  /   /  G", "Soo/  o/  G", 4)
    write_puzzles(tmp_path / "a.csv", [*rows, rows[0], *turned, two_ways])
    report, sound = check_file(tmp_path / "a.csv")
    assert (report.rows, report.malformed, report.duplicates) == (14, 1, 1)
    assert (report.equivalents, report.several_solutions) == (2, 0)
    assert "line 15: the question is not 9x9" in report.first_malformed
    write_puzzles(tmp_path / "b.csv", [two_ways])
    assert check_file(tmp_path / "b.csv")[0].several_solutions == 1
    assert sound is not None
    pair = check_pair(puzzles.take(np.arange(5)), sound)
    assert (pair.duplicates, pair.equivalents, pair.shared_grids) == (6, 8, 8)


def test_the_generator_of_a_recipe_takes_kinds_in_turn() -> None:
    form = form_of("maze")
    options = {"perfect": [4, 6], "walls": [3, 5]}
    rows = list(form.generate(Maze(9, 9), 6, 0, options))
    assert [row.source for row in rows] == ["perfect_9x9", "walls_9x9"] * 3
    for wrong, message in (
        ({"spiral": [4, 6]}, "generator.spiral: there are perfect and walls"),
        ({"walls": 4}, "generator.walls is 4; it must be the fewest and most steps"),
    ):
        with pytest.raises(DataError, match=message):
            next(form.generate(Maze(9, 9), 6, 0, wrong))


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    out = tmp_path / "mazes.csv"
    command = ["generate", "maze", "--out", str(out), "--rows", "8", "--columns", "11"]
    asked = [*command, "--kind", "walls", "--min-path", "5", "--max-path", "9", "--count", "7"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    wanted = WantedMazes(8, 11, "walls", 0, 5, 9)
    assert list(read_puzzles(out)) == list(first_rows(wanted, 7))
    result = CliRunner().invoke(app, [*command, "--kind", "spiral"])
    assert result.exit_code != 0
    assert isinstance(result.exception, DataError | SystemExit)
