"""Small random operators, whole checkpoints and puzzles for the tests of the engine."""

from __future__ import annotations

import torch
from torch import Tensor

from eqr_core.engine.engine import Engine
from eqr_core.engine.stats import Observer
from eqr_core.model.card import Card
from eqr_core.model.config import Mixer, OperatorConfig, States
from eqr_core.model.operator import Operator
from eqr_core.tasks.base import Grid
from eqr_core.tasks.sudoku import Sudoku

TASK = Sudoku(box=(2, 2))
GRID: Grid = ((1, 0, 0, 0), (0, 0, 3, 0), (0, 4, 0, 0), (0, 0, 0, 2))
FULL: Grid = ((1, 3, 2, 4), (4, 2, 3, 1), (2, 4, 1, 3), (3, 1, 4, 2))


def config(mixer: Mixer = "units", states: States = "single", **changes: object) -> OperatorConfig:
    values: dict[str, object] = {
        "task": "sudoku",
        "mixer": mixer,
        "hidden": 8,
        "blocks": 1,
        "cycles": 1,
        "updates": 2,
        "states": states,
        "expansion": 2.0,
        "heads": 2,
    }
    if mixer == "units":
        values["constraint_kinds"] = 3
    else:
        values["vocabulary"] = TASK.vocabulary
        values["tokens"] = TASK.tokens
    return OperatorConfig.from_dict({**values, **changes})


def weights(operator: OperatorConfig, task: Sudoku = TASK, gain: float = 1.0) -> dict[str, Tensor]:
    """Random weights; a gain above 1 makes trajectories slow to settle, and unlike each other."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        values = Operator(operator, task).state_dict()
    return {name: value * gain for name, value in values.items()}


def engine(
    operator: OperatorConfig | None = None,
    *,
    tolerance: float | None = None,
    gain: float = 1.0,
    slots: int = 64,
    queue: int = 1024,
    name: str = "tiny",
    task: Sudoku = TASK,
    observer: Observer | None = None,
) -> Engine:
    operator = operator or config()
    card = Card(name, "sudoku", operator, (task.size,), tolerance=tolerance)
    loaded = [(weights(operator, task, gain), card)]
    return Engine.of(loaded, slots=slots, queue=queue, observer=observer)


def puzzles(count: int) -> list[Grid]:
    """Different grids of few clues each; some of them have no solution or several."""
    generator = torch.Generator().manual_seed(3)
    found: list[Grid] = []
    while len(found) < count:
        keep = torch.rand(4, 4, generator=generator) < 0.4
        digits = torch.randperm(4, generator=generator) + 1
        grid = tuple(
            tuple(int(digits[int(cell) - 1]) if keep[r, c] else 0 for c, cell in enumerate(row))
            for r, row in enumerate(FULL)
        )
        if not TASK.verify(grid, grid):
            found.append(grid)
    return found
