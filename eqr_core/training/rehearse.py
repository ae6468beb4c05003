"""A run's whole course at tiny width on the CPU, so that no fault waits for the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.errors import TrainingError
from eqr_core.training.loop import Trainer
from eqr_core.training.recipe import Recipe

STEPS = 6
MINUTES = 0.2
"""Of a rehearsal whose run ends by time."""


def rehearse_run(recipe: Recipe, files: Sequence[Path], *, within: float | None) -> str:
    """Train one step, stop, go on to the end, export, load and solve; a line that says so.

    Everything is the recipe's but its sizes: width, batch, number of steps and validation.
    What the real run would refuse is refused here.
    """
    small = _small(recipe)
    with TemporaryDirectory() as name:
        folder = Path(name)
        limit = None if within is None else MINUTES

        def trainer() -> Trainer:
            return Trainer(small, folder, files, within=limit, compiled=False)

        first = trainer()
        first.run(minutes=0)
        second = trainer()
        if not second.resume() or second.done != first.done:
            raise TrainingError("the rehearsed run did not go on where it had stopped")
        second.run()
        puzzles = second.sets[0]
        engine = Engine([folder / "best"])
        grid = puzzles.task.decode(puzzles.validation.question[0].tolist())
        budget = Budget(depth=2, breadth=1, stop="exhausted")
        request = SolveRequest(puzzles.task, grid, small.name, budget)
        answer = engine.solve([request])[0]
        return (
            f"{recipe.name}: rehearsed {second.done} steps, stopped once and gone on, exported, "
            f"loaded and asked ({answer.finish_reason}, residual {answer.residual:.2g})"
        )


def _small(recipe: Recipe) -> Recipe:
    operator = recipe.operator
    width = operator.heads * 4 if operator.mixer == "attention" else 8
    return replace(
        recipe,
        operator=replace(operator, hidden=width),
        puzzles=tuple(
            replace(mix, batch=min(mix.batch, 4), generate=min(mix.generate, 20))
            for mix in recipe.puzzles
        ),
        steps=STEPS,
        validate_every=2,
        validation_rows=min(recipe.validation_rows, 8),
    )
