"""The construction path's script: its stages, its split, and cells that are run once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.construction import cells, path
from benchmarks.construction.summary import draw, interval, summarise, write_table
from eqr_core.data.canonical import canonical_grids, keys
from eqr_core.data.puzzles import digit_tokens, read_puzzles
from eqr_core.errors import RecipeError
from eqr_core.tasks.sudoku import BOXES


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "PUZZLES", 120)
    monkeypatch.setattr(cells, "TEST_ROWS", 6)
    monkeypatch.setattr(cells, "DEPTHS", (1, 3))
    monkeypatch.setattr(cells, "BREADTHS", (1, 2))
    recipe = replace(path.TRAINING, steps=3, validate_every=3, validation_rows=5)
    monkeypatch.setattr(path, "TRAINING", recipe)


def test_every_stage_passes_as_many_layers_and_samples() -> None:
    recipes = [path.recipe_of(stage, 0) for stage in range(len(path.PATH))]
    assert len({recipe.operator.layers_per_step for recipe in recipes}) == 1
    assert all((r.steps, r.puzzles) == (recipes[0].steps, recipes[0].puzzles) for r in recipes)
    last = recipes[-1]
    assert (last.act, last.depth, last.operator.states) == (True, path.DEPTH, "hierarchical")
    assert (last.operator.initial, last.operator.blocks) == ("random", 1)
    assert len({json.dumps(recipe.to_dict()) for recipe in recipes}) == len(recipes)


@pytest.mark.usefixtures("small")
def test_no_class_of_solutions_is_trained_and_tested(tmp_path: Path) -> None:
    classes = []
    for file in cells.puzzle_files(tmp_path):
        answers = digit_tokens([row.answer for row in read_puzzles(file)]) - 1
        classes.append(set(keys(canonical_grids(BOXES[path.SIDE], answers)).tolist()))
    train, test = classes
    assert train
    assert test
    assert not train & test


@pytest.mark.usefixtures("small")
def test_a_cell_is_run_once_and_counts_come_out(tmp_path: Path) -> None:
    train, test = cells.puzzle_files(tmp_path)
    for stage in range(len(path.PATH)):
        assert not cells.is_done(tmp_path, stage, 0)
        assert cells.run_cell(tmp_path, stage, 0, train, test)
        assert cells.is_done(tmp_path, stage, 0)
        done = {line["stage"] for line in summarise(tmp_path, seeds=2)}
        assert done == {one.name for one in path.PATH[: stage + 1]}
    lines = summarise(tmp_path, seeds=1)
    breadths = {(line["stage"], line["breadth"]) for line in lines}
    assert ("feed-forward", 2) not in breadths
    assert ("+ NI", 2) in breadths
    write_table(tmp_path / "table.csv", lines)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == len(lines) + 1
    result = cells.result_path(tmp_path, 0, 0)
    values = json.loads(result.read_text())
    values["recipe"]["steps"] += 1
    result.write_text(json.dumps(values))
    with pytest.raises(RecipeError, match="another recipe"):
        cells.is_done(tmp_path, 0, 0)


def test_the_interval_doubts_what_few_puzzles_show() -> None:
    low, high = interval([0, 0, 0], 100)
    assert 0 < high < 0.05
    assert low < 1e-3
    few, many = interval([50, 60], 100), interval([500, 600], 1000)
    assert few[0] < many[0] < 0.55 < many[1] < few[1]


def test_the_plot_is_drawn_from_what_a_finished_run_gives(tmp_path: Path) -> None:
    lines = [
        {
            "stage": stage.name,
            "depth": depth,
            "breadth": breadth,
            "exact_accuracy": 0.5,
            "interval": [0.4, 0.6],
        }
        for stage in path.PATH
        for depth in cells.DEPTHS
        for breadth in cells.BREADTHS
    ]
    draw(tmp_path / "plot.png", lines)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
