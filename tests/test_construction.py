"""The construction script: its paths' stages and splits, and cells that are run once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path as File

import pytest

from benchmarks.construction import cells
from benchmarks.construction.maze import MAZE
from benchmarks.construction.path import Held, Path, train_file
from benchmarks.construction.plot import draw
from benchmarks.construction.sudoku import DEPTH, SIDE, SUDOKU
from benchmarks.construction.summary import interval, show, summarise, write_table
from eqr_core.data.canonical import canonical_grids, keys
from eqr_core.data.equivalence import grid_keys
from eqr_core.data.packed import read_packed
from eqr_core.data.puzzles import digit_tokens, read_puzzles
from eqr_core.errors import RecipeError
from eqr_core.tasks.sudoku import BOXES

PATHS = pytest.mark.parametrize("path", [SUDOKU, MAZE], ids=["sudoku", "maze"])


def small(path: Path) -> Path:
    first, *others = path.tests
    return replace(
        path,
        training=replace(path.training, steps=3, validate_every=3, validation_rows=5),
        puzzles=120,
        native=False,
        tests=(
            Held(first.size, 6, (1, 3), (1, 2)),
            *(Held(one.size, 2, (1, 2)) for one in others),
        ),
    )


@PATHS
def test_every_stage_passes_as_many_layers_and_samples(path: Path) -> None:
    recipes = [path.recipe(stage, 0) for stage in range(len(path.stages))]
    assert len({recipe.operator.layers_per_step for recipe in recipes}) == 1
    assert all((r.steps, r.puzzles) == (recipes[0].steps, recipes[0].puzzles) for r in recipes)
    last = recipes[-1]
    assert (last.act, last.depth, last.operator.initial) == (True, DEPTH, "random")
    assert len({json.dumps(recipe.to_dict()) for recipe in recipes}) == len(recipes)


def test_the_stages_of_the_maze_path_differ_in_random_starts_and_noise_alone() -> None:
    recipes = [MAZE.recipe(stage, 0) for stage in range(len(MAZE.stages))]
    assert {(r.operator.initial, r.operator.noise > 0) for r in recipes} == {
        ("fixed", False),
        ("fixed", True),
        ("random", False),
        ("random", True),
    }
    same = [replace(r, operator=replace(r.operator, initial="random", noise=0)) for r in recipes]
    assert len({json.dumps(recipe.to_dict()) for recipe in same}) == 1


def test_no_class_of_solutions_is_trained_and_tested(tmp_path: File) -> None:
    path = small(SUDOKU)
    cells.make_puzzles(path, tmp_path)
    classes = []
    for file in (train_file(tmp_path), path.tests[0].file(tmp_path)):
        answers = digit_tokens([row.answer for row in read_puzzles(file)]) - 1
        classes.append(set(keys(canonical_grids(BOXES[SIDE], answers)).tolist()))
    train, test = classes
    assert train
    assert test
    assert not train & test


def test_no_walls_are_trained_and_tested(tmp_path: File) -> None:
    path = small(MAZE)
    cells.make_puzzles(path, tmp_path)
    train, test = (
        read_packed(file) for file in (train_file(tmp_path), path.tests[0].file(tmp_path))
    )
    assert len(train) + len(test) == path.puzzles
    assert len(test) == path.tests[0].rows
    walls, others = grid_keys(train), grid_keys(test)
    assert walls is not None
    assert others is not None
    assert not set(walls.tolist()) & set(others.tolist())
    long = read_packed(path.tests[1].file(tmp_path))
    assert long.task.size == "30x30"
    assert 100 <= long.rating.min() <= long.rating.max() <= 140


@PATHS
def test_a_cell_is_run_once_and_counts_come_out(path: Path, tmp_path: File) -> None:
    path = small(path)
    cells.make_puzzles(path, tmp_path)
    for stage in range(len(path.stages)):
        assert not cells.is_done(path, tmp_path, stage, 0)
        assert cells.run_cell(path, tmp_path, stage, 0)
        assert cells.is_done(path, tmp_path, stage, 0)
        done = {line["stage"] for line in summarise(path, tmp_path, seeds=2)}
        assert done == {one.name for one in path.stages[: stage + 1]}
    lines = summarise(path, tmp_path, seeds=1)
    breadths = {(line["stage"], line["breadth"]) for line in lines}
    assert (path.stages[0].name, 2) not in breadths
    assert (path.stages[-1].name, 2) in breadths
    assert {(line["size"], line["rows"]) for line in lines} == {
        (held.size, held.rows) for held in path.tests
    }
    write_table(tmp_path / "table.csv", lines)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == len(lines) + 1
    result = cells.result_file(tmp_path, 0, 0)
    values = json.loads(result.read_text())
    values["recipe"]["steps"] += 1
    result.write_text(json.dumps(values))
    with pytest.raises(RecipeError, match="another recipe"):
        cells.is_done(path, tmp_path, 0, 0)


def test_the_interval_doubts_what_few_puzzles_show() -> None:
    low, high = interval([0, 0, 0], 100)
    assert 0 < high < 0.05
    assert low < 1e-3
    few, many = interval([50, 60], 100), interval([500, 600], 1000)
    assert few[0] < many[0] < 0.55 < many[1] < few[1]


@PATHS
def test_table_and_plot_are_drawn_from_what_a_finished_run_gives(
    path: Path, tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {
            "stage": stage.name,
            "parameters": 1000,
            "size": held.size,
            "depth": depth,
            "breadth": breadth,
            "exact_accuracy": 0.5,
            "interval": [0.4, 0.6],
        }
        for stage in path.stages
        for held in path.tests
        for depth in held.depths
        for breadth in held.breadths
    ]
    draw(path, tmp_path / "plot.png", lines)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    show(path, lines)
    shown = capsys.readouterr().out
    assert all(stage.name in shown for stage in path.stages)
    assert shown.count("50.0") >= len(path.stages)
