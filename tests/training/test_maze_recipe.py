"""The recipes of a second task train by the code that trains the first."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eqr_core.data.augmentation import random_images
from eqr_core.data.equivalence import grid_keys
from eqr_core.data.mazes import WantedMazes
from eqr_core.data.packed import pack
from eqr_core.data.units import first_rows
from eqr_core.errors import DataError, RecipeError
from eqr_core.evaluation.calibrate import calibrate
from eqr_core.model.checkpoint import read_card
from eqr_core.solver import Solver
from eqr_core.tasks.maze import Maze
from eqr_core.training.loop import Trainer
from eqr_core.training.puzzles import open_puzzles
from eqr_core.training.recipe import HeldOut, Recipe, SizeMix, load_recipe

PATHS = {"perfect": [3, 9], "walls": [3, 6]}


def small(name: str) -> Recipe:
    base = load_recipe(name)
    return replace(
        base,
        operator=replace(base.operator, hidden=16, heads=2),
        puzzles=(
            SizeMix("9x9", 1.0, 4, 40, generator=PATHS),
            SizeMix("7x10", 1.0, 4, 30, generator=PATHS),
        ),
        held_out=(HeldOut("11x11", 6, 5, {"perfect": [5, 12]}),),
        untrained_sizes=("5x5-20x20",),
        steps=4,
        depth=2,
        warmup=1,
        validate_every=2,
        validation_rows=5,
    )


@pytest.mark.parametrize("name", ["maze", "maze30-paper"])
def test_a_run_stops_goes_on_and_gives_a_model_of_every_size(name: str, tmp_path: Path) -> None:
    recipe = small(name)
    whole = Trainer(recipe, tmp_path / "whole", compiled=False)
    whole.run()
    parts = Trainer(recipe, tmp_path / "parts", compiled=False)
    parts.run(minutes=0)
    again = Trainer(recipe, tmp_path / "parts", compiled=False)
    assert again.resume()
    again.run()
    for key, value in whole.operator.state_dict().items():
        assert torch.equal(value, again.operator.state_dict()[key]), key
    card = read_card(tmp_path / "whole" / "best")
    assert card.sizes == ("9x9", "7x10", "5x5-20x20")
    with (tmp_path / "whole" / "validation.csv").open() as file:
        assert {row["size"] for row in csv.DictReader(file)} == {"9x9", "7x10", "11x11@5"}
    held = tmp_path / "whole" / "held-out-7x10.npz"
    assert held.is_file()
    answer = Solver.load(tmp_path / "whole" / "best").solve("S  # #/#   # /  ## #/ #   #/   #G ")
    assert answer.task == "maze"


def test_the_best_is_what_does_best_on_the_sizes_held_out(tmp_path: Path) -> None:
    trainer = Trainer(small("maze"), tmp_path, compiled=False)
    trainer.run()
    measured = [validator.measure(trainer.average.shadow) for validator in trainer.validators]
    assert [one.size for one in measured] == ["9x9", "7x10", "11x11@5"]
    assert trainer.best >= measured[-1].exact
    assert all(puzzles.task == Maze(11, 11) for puzzles in trainer.held_out)


def test_no_walls_are_trained_on_and_held_out() -> None:
    for one in open_puzzles(small("maze"), [], lambda text: None)[:1]:
        train = replace(one.validation, question=one.question.numpy(), answer=one.answer.numpy())
        names = grid_keys(train), grid_keys(one.validation)
        assert not set(names[0]) & set(names[1])  # type: ignore[arg-type]


def test_images_of_mazes_are_mazes_with_their_answers() -> None:
    for wanted in (WantedMazes(9, 9), WantedMazes(7, 12)):
        puzzles = pack(first_rows(wanted, 40))
        task = puzzles.task
        question, answer = map(torch.from_numpy, (puzzles.question, puzzles.answer))
        turned, solved = random_images(task, question, answer, torch.Generator().manual_seed(0))
        assert turned.dtype == solved.dtype == torch.uint8
        changed = 0
        for one, other, before in zip(turned, solved, question, strict=True):
            assert task.verify(task.decode(one.numpy()), task.decode(other.numpy()))
            changed += not torch.equal(one, before)
        assert changed > 25


def test_a_maze_checkpoint_is_calibrated_on_mazes(tmp_path: Path) -> None:
    Trainer(small("maze"), tmp_path, compiled=False).run()
    puzzles = pack(first_rows(WantedMazes(7, 8), 4))
    card = calibrate(tmp_path / "best", puzzles, depth=4, breadth=2)
    assert card.calibration["puzzles"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": [{"size": "9x9", "rows": 0, "depth": 4}]}, "held_out of 9x9: rows is 0"),
        ({"held_out": [{"size": "9x9", "depth": 4}]}, "held_out: missing fields: rows"),
        ({"held_out": [{"size": "9", "rows": 5, "depth": 4}]}, "size is '9'"),
        ({"held_out": "9x9"}, "held_out is '9x9'; it must be a list"),
        (
            {"held_out": [{"size": "9x9", "rows": 5, "depth": 4, "generator": 3}]},
            "held_out: generator is 3; it must be a table",
        ),
        ({"untrained_sizes": ["9x9-8x8"]}, "untrained_sizes: '9x9-8x8' must read like"),
    ],
)
def test_fields_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**load_recipe("maze").to_dict(), **changes})


def test_a_generator_that_is_not_known_is_told() -> None:
    recipe = small("maze")
    mix = replace(recipe.puzzles[0], generator={"spiral": [1, 2]})
    with pytest.raises(DataError, match=r"generator\.spiral: there are perfect and walls"):
        open_puzzles(replace(recipe, puzzles=(mix,)), [], lambda text: None)


def test_a_recipe_without_the_new_fields_reads_as_it_did() -> None:
    values = load_recipe("sudoku").to_dict()
    assert "held_out" not in values
    assert all("generator" not in mix for mix in values["puzzles"])
    assert Recipe.from_dict(values) == load_recipe("sudoku")
    full = load_recipe("maze")
    assert Recipe.from_dict(full.to_dict()) == full
    assert all(mix.options for mix in full.puzzles)
