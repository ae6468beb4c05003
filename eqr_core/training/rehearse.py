"""A run's whole course at tiny width, so that no fault waits for the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.errors import TrainingError
from eqr_core.training.loop import Trainer
from eqr_core.training.recipe import Recipe

STEPS = 6
MINUTES = 0.2
"""Of a rehearsal whose run ends by time."""

Build = Callable[[Recipe, Path, bool], Trainer]
"""The trainer of the real command, but for recipe, folder and whether it starts afresh."""


def rehearse_run(recipe: Recipe, folder: Path, build: Build) -> str:
    """Train one step, stop, go on to the end, export, load and solve; a line that says so.

    First the real run is built and its folder read, in full size, so that whatever it would
    refuse is refused here; no step of it is run. The rehearsed run is the recipe's but for
    width, batch, number of steps, validation and start. TrainingError where it does not go on as
    it stopped.
    """
    real = build(recipe, folder, False)
    real.folder.load()
    with TemporaryDirectory() as name:
        small = _small(recipe)
        first = build(small, Path(name), True)
        first.run(minutes=0)
        second = build(small, Path(name), True)
        if not second.resume() or not _same(first, second):
            raise TrainingError("the rehearsed run did not go on where it had stopped")
        second.run()
        answer = _ask(second, Path(name) / "best")
    return (
        f"{recipe.name}: {real.operator.parameter_count:,} parameters, its state "
        f"{real.state_bytes / 2**20:.1f} MiB; rehearsed {second.done} steps ({second.arithmetic}), "
        "stopped once and gone on with equal weights, exported, loaded and asked "
        f"({answer})"
    )


def _same(first: Trainer, second: Trainer) -> bool:
    theirs = second.operator.state_dict()
    return first.done == second.done and all(
        torch.equal(value, theirs[name]) for name, value in first.operator.state_dict().items()
    )


def _ask(trainer: Trainer, checkpoint: Path) -> str:
    puzzles = trainer.sets[0]
    grid = puzzles.task.decode(puzzles.validation.question[0])
    budget = Budget(depth=2, breadth=1, stop="exhausted")
    request = SolveRequest(puzzles.task, grid, trainer.recipe.name, budget)
    answer = Engine([checkpoint]).solve([request])[0]
    return f"{answer.finish_reason}, residual {answer.residual:.2g}"


def _small(recipe: Recipe) -> Recipe:
    operator = recipe.operator
    width = operator.heads * 4 if operator.mixer == "attention" else 32
    return replace(
        recipe,
        operator=replace(operator, hidden=width),
        puzzles=tuple(
            replace(mix, batch=min(mix.batch, 4), generate=min(mix.generate, 20))
            for mix in recipe.puzzles
        ),
        held_out=tuple(
            replace(one, rows=min(one.rows, 4), depth=min(one.depth, 4)) for one in recipe.held_out
        ),
        steps=STEPS,
        validate_every=2,
        validation_rows=min(recipe.validation_rows, 8),
    )
