"""Small checkpoints with random weights, for tests that need a real one and no skill."""

from __future__ import annotations

from pathlib import Path

import torch

from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.tasks.maze import Maze
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


MAZE = OperatorConfig("maze", "grid", 8, 1, 1, 2, "single", expansion=2.0, vocabulary=6)


def save_random_maze(folder: Path, *, name: str = "maze") -> Card:
    """A `grid` operator for mazes from 4×4 to 64×64, written to `folder`."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = Operator(MAZE, Maze(9, 9)).state_dict()
    return save_checkpoint(folder, weights, Card(name, "maze", MAZE, ("4x4-64x64",)))
