"""Small checkpoints with random weights, for tests that need a real one and no skill."""

from __future__ import annotations

from pathlib import Path

import torch

from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.tasks.sudoku import Sudoku

CONFIG = OperatorConfig(
    task="sudoku",
    mixer="units",
    hidden=8,
    blocks=1,
    cycles=1,
    updates=2,
    states="single",
    expansion=2.0,
    constraint_kinds=3,
)


def save_random(
    folder: Path, *, name: str = "random", seed: int = 0, tolerance: float | None = None
) -> Card:
    """A `units` operator for all sizes, written to `folder`."""
    torch.manual_seed(seed)
    operator = Operator(CONFIG, Sudoku())
    card = Card(
        name=name,
        task="sudoku",
        operator=CONFIG,
        sizes=("4x4", "6x6", "9x9", "16x16"),
        tolerance=tolerance,
    )
    return save_checkpoint(folder, operator.state_dict(), card)
