"""Segmented online training on the real operator and generated puzzles, at tiny width."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from eqr_core.data.generate import generate_sudoku
from eqr_core.data.puzzles import digit_tokens, write_puzzles
from eqr_core.errors import DataError, RecipeError, TrainingError
from eqr_core.model.checkpoint import load_checkpoint
from eqr_core.tasks.sudoku import Sudoku
from eqr_core.training.loop import Trainer
from eqr_core.training.optimizer import FINAL_LR, AdamAtan2, schedule
from eqr_core.training.puzzles import open_puzzles
from eqr_core.training.recipe import Recipe, SizeMix, load_recipe, recipe_names
from eqr_core.training.rehearse import rehearse_run
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
            SizeMix("4x4", 0.7, 8, 60, (4, 6)),
            SizeMix("6x6", 0.3, 4, 12),
        ),
    }
    return dataclasses.replace(base, **{**values, **changes})


def train(recipe: Recipe, folder: Path, **options: float) -> Trainer:
    trainer = Trainer(recipe, folder, compiled=False)
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
    for done in (1, 2, 3):
        assert train(recipe, tmp_path / "parts", minutes=0).done == done
    last = train(recipe, tmp_path / "parts")
    assert last.done == recipe.steps
    assert_same_run(whole, last)
    for name in ("validation.csv", "best/model.safetensors"):
        assert (tmp_path / "parts" / name).exists()
    assert (tmp_path / "parts/best/model.safetensors").read_bytes() == (
        tmp_path / "whole/best/model.safetensors"
    ).read_bytes()


# torch's compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_run_in_bfloat16_learns_the_same_way(tmp_path: Path) -> None:
    recipe = tiny(steps=50, precision="bfloat16", puzzles=(SizeMix("4x4", 1.0, 8, 60, (4, 6)),))
    losses = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        Trainer(recipe, folder, compiled=compiled).run()
        with (folder / "curve.csv").open() as file:
            losses.append(float(next(csv.DictReader(file))["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_a_signal_saves_and_the_run_goes_on_from_there(tmp_path: Path) -> None:
    recipe = tiny(steps=400, validate_every=400)
    trainer = Trainer(recipe, tmp_path / "run", compiled=False)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    trainer.run()
    assert trainer.interrupted
    assert 0 < trainer.done < 400
    again = Trainer(recipe, tmp_path / "run", compiled=False)
    assert again.resume()
    assert again.done == trainer.done
    assert_same_run(trainer, again)


def test_a_gradient_that_is_not_finite_stops_the_run_and_spares_its_state(tmp_path: Path) -> None:
    recipe = tiny()
    train(recipe, tmp_path, minutes=0)
    before = (tmp_path / "state.json").read_bytes()
    trainer = Trainer(recipe, tmp_path, compiled=False)
    trainer.resume()
    for segment in trainer.segments:
        segment.state[0][0] = float("nan")
    with pytest.raises(TrainingError, match="optimiser step 2"):
        trainer.run()
    assert (tmp_path / "state.json").read_bytes() == before
    assert all(value.isfinite().all() for value in trainer.operator.state_dict().values())


def test_a_run_can_begin_with_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "first")
    weights, card = load_checkpoint(tmp_path / "first/best")
    second = Trainer(tiny(), tmp_path / "second", start=tmp_path / "first/best", compiled=False)
    assert all(torch.equal(v, weights[k]) for k, v in second.operator.state_dict().items())
    assert all(torch.equal(v, weights[k]) for k, v in second.average.shadow.items())
    second.run(minutes=0)
    assert Trainer(
        tiny(), tmp_path / "second", start=tmp_path / "first/best", compiled=False
    ).resume()
    with pytest.raises(RecipeError, match="another start"):
        Trainer(tiny(), tmp_path / "second", compiled=False).resume()
    longer = tiny(operator=dataclasses.replace(tiny().operator, cycles=2, damping=0.1))
    third = Trainer(longer, tmp_path / "third", start=tmp_path / "first/best", compiled=False)
    assert all(torch.equal(v, weights[k]) for k, v in third.operator.state_dict().items())
    other = tiny(operator=dataclasses.replace(tiny().operator, hidden=16))
    with pytest.raises(RecipeError, match="not the recipe's"):
        Trainer(other, tmp_path / "fourth", start=tmp_path / "first/best", compiled=False)
    assert card.training["start"] is None


def test_a_refused_run_leaves_the_held_out_puzzles_alone(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "run", minutes=0)
    before = (tmp_path / "run/held-out-4x4.npz").read_bytes()
    other = tmp_path / "other.csv"
    write_puzzles(other, generate_sudoku(Sudoku((2, 2)), 40, 9, (4, 6)))
    with pytest.raises(RecipeError, match="another data"):
        Trainer(tiny(), tmp_path / "run", [other], compiled=False).resume()
    assert (tmp_path / "run/held-out-4x4.npz").read_bytes() == before


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
        puzzles=(SizeMix("4x4", 1.0, 32, 400, (4, 6)),),
        operator=dataclasses.replace(load_recipe("sudoku4").operator, hidden=16, updates=3),
    )
    trainer = train(recipe, tmp_path)
    with (tmp_path / "curve.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.best > 0.3


def test_a_halted_sample_is_replaced_and_starts_again(tmp_path: Path) -> None:
    trainer = Trainer(tiny(depth=2, exploration=0.0), tmp_path, compiled=False)
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
    (source,) = open_puzzles(
        tiny(puzzles=(SizeMix("4x4", 1.0, 8, 60, (4, 6)),)), [], lambda text: None
    )
    generator = torch.Generator().manual_seed(0)
    question, answer = source.draw(50, 0.9, generator)
    shown = question != 1
    assert torch.equal(question[shown], answer[shown])
    assert shown.float().mean() > 0.4
    plain, _ = source.draw(50, 0.0, generator)
    assert (plain != 1).sum(1).max() <= 6


def test_training_and_validation_share_no_question_even_of_a_file_with_doubles(
    tmp_path: Path,
) -> None:
    path = tmp_path / "doubled.csv"
    write_puzzles(path, list(generate_sudoku(Sudoku((2, 2)), 30, 5, (4, 6))) * 3)
    for one in open_puzzles(tiny(), [path], lambda text: None):
        train_rows = {bytes(row) for row in one.question.numpy()}
        held_out = {bytes(row) for row in one.validation.question}
        assert held_out
        assert not train_rows & held_out


def test_halting_follows_q_and_waits_for_the_minimum(tmp_path: Path) -> None:
    trainer = Trainer(tiny(depth=16, exploration=0.0), tmp_path, compiled=False)
    segment = trainer.segments[0]
    with torch.no_grad():
        trainer.operator.q_head.bias.fill_(5.0)
    segment.least[:4] = 3
    assert segment.step(0.0).halted == 4
    assert segment.steps.tolist() == [1] * 4 + [0] * 4
    segment.least[4:] = 1
    assert segment.step(0.0).halted == 4
    assert segment.step(0.0).halted == 8


def test_exploration_draws_minimums_from_two_to_the_depth(tmp_path: Path) -> None:
    trainer = Trainer(tiny(depth=5, exploration=0.5), tmp_path, compiled=False)
    segment = trainer.segments[0]
    least = torch.cat([segment._least() for _ in range(500)])
    assert set(least.tolist()) == {1, 2, 3, 4, 5}
    assert (least > 1).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_the_carry_takes_no_graph_along(tmp_path: Path) -> None:
    segment = Trainer(tiny(), tmp_path, compiled=False).segments[0]
    segment.step(0.0)
    assert all(not part.requires_grad for part in segment.state)


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    trainer = Trainer(tiny(), tmp_path, compiled=False)
    start = trainer.average.shadow["embedding"].clone()
    with torch.no_grad():
        trainer.operator.embedding.add_(1.0)
    trainer.average.update(10**9)
    moved = trainer.average.shadow["embedding"] - start
    assert torch.allclose(moved, torch.full_like(moved, 1 - trainer.recipe.ema), atol=1e-6)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(tiny(steps=2), tmp_path)
    with pytest.raises(RecipeError, match="another recipe"):
        Trainer(tiny(steps=3), tmp_path, compiled=False).resume()


def test_a_broken_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"no state")
    with pytest.raises(RecipeError, match="not a training state"):
        load_state(tmp_path)


def test_data_files_replace_generated_puzzles(tmp_path: Path) -> None:
    path = tmp_path / "four.csv"
    write_puzzles(path, generate_sudoku(Sudoku((2, 2)), 20, 5, (4, 6)))
    sources = open_puzzles(tiny(), [path], lambda text: None)
    assert len(sources[0].question) == 16
    nine = tmp_path / "nine.csv"
    write_puzzles(nine, generate_sudoku(Sudoku((3, 3)), 2, 5))
    with pytest.raises(DataError, match="sudoku of 9x9; the recipe sudoku4 has 4x4, 6x6"):
        open_puzzles(tiny(), [nine], lambda text: None)


def test_the_schedule_warms_up_stays_and_falls() -> None:
    recipe = tiny(steps=100, warmup=10, decay=0.5)
    assert schedule(recipe, 0, 0.0) == pytest.approx(0.1)
    assert schedule(recipe, 10, 0.1) == schedule(recipe, 50, 0.5) == 1.0
    assert schedule(recipe, 75, 0.75) == pytest.approx(0.5)
    assert schedule(recipe, 100, 1.0) == FINAL_LR


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
        ('name = "x"\nsteps = 1\npuzzles = "x"\noperator = {}', "puzzles is 'x'"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "many"}, "steps is 'many'"),
        ({"steps": 10.5}, "steps is 10.5"),
        ({"seed": 2**70}, "seed is"),
        ({"matrix_lr": -1.0}, "matrix_lr is -1.0"),
        ({"ema": float("nan")}, "ema is nan"),
        ({"q_weight": "x"}, "q_weight is 'x'"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"name": ""}, "name is ''"),
        ({"untrained_sizes": ["banana"]}, "'banana'"),
        ({"untrained_sizes": "16x16"}, "untrained_sizes is '16x16'"),
        ({"untrained_sizes": ["4x4"]}, "twice"),
        ({"puzzles": []}, "puzzles is empty"),
        ({"puzzles": [{"size": "4x4"}]}, "missing fields: batch, generate, share"),
        ({"puzzles": [{"size": "5x5", "share": 1, "batch": 8, "generate": 9}]}, "5"),
        ({"puzzles": [{"size": "4x4", "share": 1, "batch": 0, "generate": 9}]}, "batch is 0"),
        (
            {"puzzles": [{"size": "4x4", "share": 1, "batch": 8, "generate": 9, "clues": [4]}]},
            r"clues is \[4\]",
        ),
    ],
)
def test_a_field_outside_its_limits_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**tiny().to_dict(), **changes})


def test_a_source_that_is_not_in_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "four.csv"
    write_puzzles(path, generate_sudoku(Sudoku((2, 2)), 20, 5, (4, 6)))
    mix = SizeMix("4x4", 1.0, 8, 60, (4, 6), {"generated_4x4": 0.5, "typo": 0.5})
    with pytest.raises(DataError, match=r"sources\.typo is not in the data file"):
        open_puzzles(tiny(puzzles=(mix,)), [path], lambda text: None)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="sudoku4"):
        load_recipe("nonesuch")


def test_samples_follow_the_shares_of_their_sources(tmp_path: Path) -> None:
    rows = list(generate_sudoku(Sudoku((2, 2)), 60, 5, (4, 6)))
    named = [dataclasses.replace(row, source="abc"[i % 3]) for i, row in enumerate(rows)]
    path = tmp_path / "named.csv"
    write_puzzles(path, named)
    mix = SizeMix("4x4", 1.0, 8, 60, (4, 6), {"a": 0.75, "b": 0.25})
    (source,) = open_puzzles(tiny(puzzles=(mix,)), [path], lambda text: None)
    question, _ = source.draw(2000, 0.0, torch.Generator().manual_seed(0))
    origin = {bytes(digit_tokens([row.question])[0]): row.source for row in named}
    drawn = Counter(origin[bytes(row)] for row in question.numpy())
    assert set(drawn) == {"a", "b"}
    assert drawn["a"] / 2000 == pytest.approx(0.75, abs=0.04)


def one_size(**changes: Any) -> Recipe:
    return tiny(puzzles=(SizeMix("4x4", 1.0, 8, 60, (4, 6)),), **changes)


def test_without_act_every_sample_runs_to_its_depth(tmp_path: Path) -> None:
    trainer = Trainer(one_size(depth=3, act=False), tmp_path, compiled=False)
    segment = trainer.segments[0]
    with torch.no_grad():
        trainer.operator.q_head.bias.fill_(5.0)
    assert [int(segment.step(0.0).halted) for _ in range(3)] == [0, 0, 8]


def test_trajectory_supervision_is_the_mean_of_its_steps_losses(tmp_path: Path) -> None:
    # Without noise: its draws would not fall on the same steps.
    operator = dataclasses.replace(tiny().operator, noise=0.0)
    changes = {"depth": 3, "act": False, "operator": operator}
    whole = Trainer(one_size(supervision="trajectory", **changes), tmp_path, compiled=False)
    steps = Trainer(one_size(**changes), tmp_path, compiled=False)
    whole.segments[0].step(0.0)
    for _ in range(3):
        steps.segments[0].step(0.0)
    for one, other in zip(whole.operator.parameters(), steps.operator.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad / 3)
    assert whole.segments[0].steps.tolist() == [0] * 8


def test_trajectory_supervision_refuses_act() -> None:
    with pytest.raises(RecipeError, match="act = false"):
        one_size(supervision="trajectory")


def test_a_run_within_a_time_ends_with_its_rate_decayed(tmp_path: Path) -> None:
    recipe = one_size(steps=10**9, validate_every=10**9)
    first = Trainer(recipe, tmp_path, within=0.05, compiled=False)
    first.run(minutes=0.01)
    assert 0 < first.progress < 1
    with pytest.raises(RecipeError, match="another within_minutes"):
        Trainer(recipe, tmp_path, within=0.1, compiled=False).resume()
    second = Trainer(recipe, tmp_path, within=0.05, compiled=False)
    assert second.resume()
    assert second.progress == first.progress
    second.run()
    assert second.progress == 1.0
    last = second.optimizers.parts[0][0].param_groups[0]["lr"]
    assert last == pytest.approx(FINAL_LR * recipe.matrix_lr, rel=0.5)
    assert load_checkpoint(tmp_path / "best")[1].training["done"] == second.done


def test_a_state_too_large_keeps_all_but_the_samples_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eqr_core.training.loop.CARRY_BYTES", 0)
    monkeypatch.setattr("eqr_core.training.run_folder.LARGE_BYTES", 0)
    monkeypatch.setattr("eqr_core.training.state.FILE_BYTES", 5500)
    first = train(one_size(), tmp_path, minutes=0)
    files = sorted(tmp_path.glob("state-*"))
    assert len(files) > 1
    assert all(file.stat().st_size < 8000 for file in files)
    again = Trainer(one_size(), tmp_path, compiled=False)
    assert again.resume()
    assert torch.equal(again.segments[0].question, first.segments[0].question)
    assert again.segments[0].steps.tolist() == [0] * 8
    assert torch.equal(again.generator.get_state(), first.generator.get_state())
    again.run(minutes=0)
    assert again.done == 2


def test_a_saved_state_replaces_the_one_before_it(tmp_path: Path) -> None:
    trainer = train(one_size(), tmp_path, minutes=0)
    for _ in range(3):
        trainer.save()
    names = json.loads((tmp_path / "state.json").read_text())["files"]
    assert sorted(path.name for path in tmp_path.glob("state-*")) == names


@pytest.mark.parametrize("optimizer", ["adamw", "adam_atan2"])
def test_the_other_optimisers_learn_and_resume(tmp_path: Path, optimizer: Any) -> None:
    recipe = one_size(steps=8, optimizer=optimizer, lr=0.01, weight_decay=0.1)
    whole = train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "parts", minutes=0)
    assert_same_run(whole, train(recipe, tmp_path / "parts"))
    fresh = Trainer(recipe, tmp_path / "fresh", compiled=False)
    assert not torch.equal(fresh.operator.embedding, whole.operator.embedding)


def test_adam_atan2_first_steps_are_the_sign_times_a_quarter_turn() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdamAtan2([parameter], lr=0.1, betas=(0.9, 0.95), weight_decay=0.5)
    parameter.grad = torch.tensor([3.0, -1e-20])
    optimizer.step()
    # m = g and √v = |g| once corrected, so atan2 is ±π/4 whatever the gradient's size.
    expected = torch.tensor([1.0, -2.0]) * 0.95 - 0.1 * math.pi / 4 * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("name", recipe_names())
def test_a_rehearsal_takes_every_shipped_recipe_through_its_course(
    name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    few = tuple(dataclasses.replace(mix, batch=8, generate=20) for mix in recipe.puzzles)
    recipe = dataclasses.replace(recipe, puzzles=few)
    line = rehearse_run(
        recipe, tmp_path, lambda one, folder, small: Trainer(one, folder, compiled=False)
    )
    assert "equal weights" in line
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_refuses_what_the_real_run_would(tmp_path: Path) -> None:
    recipe = one_size()
    train(recipe, tmp_path / "taken", minutes=0)
    other = dataclasses.replace(recipe, steps=99)
    with pytest.raises(RecipeError, match=r"recipe.steps \(24, here 99\)"):
        rehearse_run(
            other,
            tmp_path / "taken",
            lambda one, folder, small: Trainer(one, folder, compiled=False),
        )


@pytest.mark.parametrize("stage", ["files written", "index replaced"])
def test_a_kill_during_a_save_harms_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr("eqr_core.training.state.FILE_BYTES", 5500)
    trainer = train(one_size(), tmp_path, minutes=0)
    with monkeypatch.context() as killing:
        # Where the save ends: before the index is replaced, or before the old files go.
        name = "os.replace" if stage == "files written" else "pathlib.Path.unlink"

        def kill(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        killing.setattr(name, kill)
        with pytest.raises(KeyboardInterrupt):
            trainer.save()
    for _ in range(2):
        trainer.save()
        assert load_state(tmp_path) is not None
        again = Trainer(one_size(), tmp_path, compiled=False)
        assert again.resume()
        assert_same_run(trainer, again)


def test_a_folder_with_a_checkpoint_but_no_state_is_left_alone(tmp_path: Path) -> None:
    train(one_size(steps=2), tmp_path)
    (tmp_path / "state.json").unlink()
    with pytest.raises(RecipeError, match="best/ but no state"):
        Trainer(one_size(steps=2), tmp_path, compiled=False).resume()


def test_a_run_without_its_best_checkpoint_exports_the_next(tmp_path: Path) -> None:
    recipe = one_size(steps=8, validate_every=4)
    first = Trainer(recipe, tmp_path, compiled=False)
    first.best = 2.0
    first.run(minutes=0)
    again = train(recipe, tmp_path)
    assert again.best <= 1.0
    assert (tmp_path / "best/card.json").is_file()


def test_a_time_without_decay_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="decay is 0"):
        Trainer(one_size(decay=0.0), tmp_path, within=1.0, compiled=False)


# torch's compiler uses what torch has deprecated, and looks at gradients where native code begins.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("hidden", [32, 8])
def test_the_card_says_how_the_run_computed(tmp_path: Path, hidden: int) -> None:
    operator = dataclasses.replace(tiny().operator, hidden=hidden)
    recipe = one_size(steps=2, precision="bfloat16", operator=operator)
    trainer = Trainer(recipe, tmp_path, compiled=hidden == 32)
    trainer.run()
    training = load_checkpoint(tmp_path / "best")[1].training
    assert training["arithmetic"] == trainer.arithmetic
    assert training["code"]
    assert training["best"] == trainer.best


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_native_run_learns_as_an_eager_one(tmp_path: Path) -> None:
    operator = dataclasses.replace(tiny().operator, hidden=32)
    recipe = one_size(steps=100, precision="bfloat16", operator=operator)
    native = Trainer(recipe, tmp_path / "native")
    if native.arithmetic != "native":
        pytest.skip("this machine has no compiler or no AVX-512")
    native.run()
    eager = Trainer(recipe, tmp_path / "eager", compiled=False)
    eager.run()
    losses = []
    for name in ("native", "eager"):
        with (tmp_path / name / "curve.csv").open() as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0][-1] < losses[0][0]
