"""The shipped checkpoints: a puzzle gets the same answer alone and among 63 others."""

from __future__ import annotations

import random

import pytest

from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine, SolveRequest
from eqr_core.model.checkpoint import find_checkpoint, read_card, zoo_names
from eqr_core.tasks import task_at
from eqr_core.tasks.base import Grid
from eqr_core.tasks.sudoku import Sudoku

SUDOKUS = [name for name in zoo_names() if read_card(find_checkpoint(name)).task == "sudoku"]


def puzzle(task: Sudoku, seed: int) -> Grid:
    """A solvable grid with two fifths of its cells given."""
    luck = random.Random(seed)
    height, width = task.box
    digits = luck.sample(range(1, task.n + 1), task.n)
    return tuple(
        tuple(
            digits[(width * (r % height) + r // height + c) % task.n] if luck.random() < 0.4 else 0
            for c in range(task.n)
        )
        for r in range(task.n)
    )


@pytest.mark.parametrize("name", SUDOKUS)
def test_the_same_grid_alone_and_among_63_others(name: str) -> None:
    card = read_card(find_checkpoint(name))
    rows, columns = (int(side) for side in card.sizes[0].split("x"))
    task = task_at("sudoku", rows, columns)
    assert isinstance(task, Sudoku)
    budget = Budget(depth=3, breadth=2)
    requests = [SolveRequest(task, puzzle(task, i), card.name, budget, seed=i) for i in range(64)]
    together = Engine([name], slots=64).solve(requests)
    for i in (0, 21, 63):
        (alone,) = Engine([name], slots=1).solve(requests[i : i + 1])
        for field in ("grid", "residual", "iterations", "converged", "finish_reason", "started"):
            assert getattr(alone, field) == getattr(together[i], field), field
        assert alone.trajectories[0] == together[i].trajectories[0]
