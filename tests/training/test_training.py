"""Segmented online training on the real operator and generated puzzles, at tiny width."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import digit_tokens, write_puzzles
from eqr_core.errors import DataError, RecipeError
from eqr_core.model.checkpoint import load_checkpoint
from eqr_core.tasks.sudoku import Sudoku
from eqr_core.training.loop import Trainer
from eqr_core.training.optimizer import FINAL_LR, schedule
from eqr_core.training.puzzles import open_sources
from eqr_core.training.recipe import Puzzles, Recipe, load_recipe, recipe_names
from eqr_core.training.state import load_state


def tiny(**changes: Any) -> Recipe:
    """A run of seconds: 4×4 and some 6×6 at width 8."""
    base = load_recipe("sudoku4")
    operator = dataclasses.replace(base.operator, hidden=8, updates=2)
    values: dict[str, Any] = {
        "operator": operator,
        "steps": 24,
        "warmup": 4,
        "validate_every": 12,
        "validation_rows": 10,
        "puzzles": (
            Puzzles("4x4", 0.7, 8, 60, (4, 6)),
            Puzzles("6x6", 0.3, 4, 12),
        ),
    }
    return dataclasses.replace(base, **{**values, **changes})


def train(recipe: Recipe, folder: Path, **options: float) -> Trainer:
    trainer = Trainer(recipe, folder, fast=False)
    trainer.resume()
    trainer.run(**options)
    return trainer


def assert_same_run(one: Trainer, other: Trainer) -> None:
    for name, value in one.operator.state_dict().items():
        assert torch.equal(value, other.operator.state_dict()[name]), name
    for name, value in one.average.shadow.items():
        assert torch.equal(value, other.average.shadow[name]), name
    for mine, theirs in zip(one.segments, other.segments, strict=True):
        for name, value in mine.tensors().items():
            assert torch.equal(value, theirs.tensors()[name]), name


def test_a_resumed_run_is_bit_equal_to_an_undisturbed_one(tmp_path: Path) -> None:
    recipe = tiny()
    whole = train(recipe, tmp_path / "whole")
    first = Trainer(recipe, tmp_path / "parts", fast=False)
    first.run(minutes=0)
    assert first.done == 1
    second = train(recipe, tmp_path / "parts")
    assert second.done == recipe.steps
    assert_same_run(whole, second)


def test_the_seed_decides_the_run(tmp_path: Path) -> None:
    one = train(tiny(steps=6), tmp_path / "one")
    same = train(tiny(steps=6), tmp_path / "same")
    other = train(tiny(steps=6, seed=1), tmp_path / "other")
    assert_same_run(one, same)
    assert not torch.equal(one.operator.head.weight, other.operator.head.weight)


def test_a_run_exports_its_average_and_logs_its_curve(tmp_path: Path) -> None:
    trainer = train(tiny(steps=100, validate_every=50), tmp_path)
    weights, card = load_checkpoint(tmp_path / "best")
    assert card.sizes == ("4x4", "6x6")
    assert card.training["recipe"]["steps"] == 100
    assert set(weights) == set(trainer.operator.state_dict())
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["50", "100"]
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    with (tmp_path / "validation.csv").open() as file:
        assert [row["size"] for row in csv.DictReader(file)] == ["4x4", "6x6"] * 2


def test_the_loss_falls_and_puzzles_get_solved(tmp_path: Path) -> None:
    recipe = tiny(
        steps=250,
        validate_every=250,
        validation_rows=60,
        puzzles=(Puzzles("4x4", 1.0, 32, 400, (4, 6)),),
        operator=dataclasses.replace(load_recipe("sudoku4").operator, hidden=16, updates=3),
    )
    trainer = train(recipe, tmp_path)
    with (tmp_path / "curve.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.best > 0.3


def test_a_halted_sample_is_replaced_and_starts_again(tmp_path: Path) -> None:
    trainer = Trainer(tiny(depth=2, exploration=0.0), tmp_path, fast=False)
    segment = trainer.segments[0]
    segment.step(0.0)
    assert segment.steps.tolist() == [1] * 8
    before = segment.question.clone()
    outcome = segment.step(0.0)
    assert outcome.halted == 8
    assert outcome.halted_steps == 16
    assert segment.steps.tolist() == [0] * 8
    assert not torch.equal(before, segment.question)


def test_revealed_cells_are_the_answers(tmp_path: Path) -> None:
    (source,) = open_sources(
        tiny(puzzles=(Puzzles("4x4", 1.0, 8, 60, (4, 6)),)), [], lambda text: None
    )
    generator = torch.Generator().manual_seed(0)
    question, answer = source.draw(50, 0.9, generator)
    shown = question != 1
    assert torch.equal(question[shown], answer[shown])
    assert shown.float().mean() > 0.4
    plain, _ = source.draw(50, 0.0, generator)
    assert (plain != 1).sum(1).max() <= 6


def test_training_and_validation_share_no_puzzle(tmp_path: Path) -> None:
    for source in open_sources(tiny(), [], lambda text: None):
        train_rows = {bytes(row) for row in source.question.numpy()}
        held_out = {bytes(row) for row in source.validation.question}
        assert not train_rows & held_out


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(tiny(steps=2), tmp_path)
    with pytest.raises(RecipeError, match="another recipe"):
        Trainer(tiny(steps=3), tmp_path, fast=False).resume()


def test_a_broken_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"no state")
    with pytest.raises(RecipeError, match="not a training state"):
        load_state(tmp_path / "state.safetensors")


def test_data_files_replace_generated_puzzles(tmp_path: Path) -> None:
    path = tmp_path / "four.csv"
    write_puzzles(path, generate_sudoku(Sudoku((2, 2)), 20, 5, (4, 6)))
    sources = open_sources(tiny(), [path], lambda text: None)
    assert len(sources[0].question) == 16
    nine = tmp_path / "nine.csv"
    write_puzzles(nine, generate_sudoku(Sudoku((3, 3)), 2, 5))
    with pytest.raises(DataError, match="81 cells"):
        open_sources(tiny(), [nine], lambda text: None)


def test_the_schedule_warms_up_stays_and_falls() -> None:
    recipe = tiny(steps=100, warmup=10, decay=0.5)
    assert schedule(recipe, 0) == pytest.approx(0.1)
    assert schedule(recipe, 10) == schedule(recipe, 50) == 1.0
    assert schedule(recipe, 75) == pytest.approx(0.5)
    assert schedule(recipe, 100) == FINAL_LR


def test_shipped_recipes_load_and_say_who_they_are() -> None:
    assert {"sudoku", "sudoku4"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "Invalid value"),
        ('name = "x"\nspeed = 3', "unknown fields: speed"),
        ('name = "x"', "missing"),
        ('name = "x"\nsteps = 1\npuzzles = []\n[operator]\ntask = "sudoku"', "mixer"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="sudoku4"):
        load_recipe("nonesuch")


def test_samples_follow_the_shares_of_their_sources(tmp_path: Path) -> None:
    rows = list(generate_sudoku(Sudoku((2, 2)), 60, 5, (4, 6)))
    named = [dataclasses.replace(row, source="abc"[i % 3]) for i, row in enumerate(rows)]
    path = tmp_path / "named.csv"
    write_puzzles(path, named)
    mix = Puzzles("4x4", 1.0, 8, 60, (4, 6), {"a": 0.75, "b": 0.25, "not there": 1.0})
    (source,) = open_sources(tiny(puzzles=(mix,)), [path], lambda text: None)
    question, _ = source.draw(2000, 0.0, torch.Generator().manual_seed(0))
    origin = {bytes(digit_tokens([row.question])[0]): row.source for row in named}
    drawn = Counter(origin[bytes(row)] for row in question.numpy())
    assert set(drawn) == {"a", "b"}
    assert drawn["a"] / 2000 == pytest.approx(0.75, abs=0.04)
