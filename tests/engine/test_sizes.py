from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import MAX_LANES, Engine
from eqr_core.errors import ModelError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import save_checkpoint
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.tasks.maze import Maze

CONFIG = OperatorConfig("maze", "grid", 8, 1, 1, 2, "single", expansion=2.0, vocabulary=6)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    for name, sizes in (("wide", ("4x4-12x40",)), ("one", ("9x9",))):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            weights = Operator(CONFIG, Maze(9, 9)).state_dict()
        save_checkpoint(tmp_path / name, weights, Card(name, "maze", CONFIG, sizes))
    return Engine([tmp_path / "wide", tmp_path / "one"], slots=2)


def request(task: Maze, model: str = "wide") -> SolveRequest:
    budget = Budget(depth=2, breadth=1, stop="exhausted")
    return SolveRequest(task, task.example, model, budget)


def test_a_range_takes_every_rectangle_in_it_and_no_other(engine: Engine) -> None:
    for task in (Maze(4, 4), Maze(5, 40), Maze(12, 7)):
        assert engine.choose_model(task) == "wide"
        (answer,) = engine.solve([request(task)])
        assert (len(answer.grid), len(answer.grid[0])) == (task.rows, task.columns)
        assert answer.finish_reason == "exhausted"
    for task in (Maze(3, 4), Maze(13, 13)):
        with pytest.raises(ModelError, match=f"no model solves maze {task.size}"):
            engine.choose_model(task)
        with pytest.raises(ModelError, match="wide solves maze 4x4-12x40"):
            engine.solve([request(task)])


def test_the_model_of_fewest_sizes_is_the_most_specialised(engine: Engine) -> None:
    assert engine.choose_model(Maze(9, 9)) == "one"


def test_idle_lanes_make_room(engine: Engine) -> None:
    first = engine.solve([request(Maze(4, 4))])[0]
    for columns in range(4, 40):
        for rows in (4, 5):
            engine.solve([request(Maze(rows, columns))])
    assert engine.stats.slots <= 2 * MAX_LANES
    again = engine.solve([request(Maze(4, 4))])[0]
    assert (again.grid, again.residual) == (first.grid, first.residual)


def test_the_sizes_asked_for_longest_ago_make_room(engine: Engine) -> None:
    engine.solve([request(Maze(9, 9), "one")])
    for columns in range(4, 40):
        for rows in (4, 5):
            engine.solve([request(Maze(rows, columns))])
            engine.solve([request(Maze(9, 9), "one")])
    sizes = [size for _, size in engine._lanes]
    assert len(sizes) == MAX_LANES
    assert sizes[-1] == "9x9"
    assert sizes[-2] == "5x39"


def test_a_maze_without_a_way_ends_unverified(engine: Engine) -> None:
    task = Maze(9, 9)
    walled = (*(tuple("#" * 9) if r == 4 else row for r, row in enumerate(task.example)),)
    (answer,) = engine.solve(
        [SolveRequest(task, walled, "one", Budget(depth=4, breadth=2, stop="verified"))]
    )
    assert not answer.verified
    assert answer.finish_reason == "exhausted"
