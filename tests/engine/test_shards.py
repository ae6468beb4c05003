"""A shard is a part of one wave of a request: its trajectories are the request's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.engine import SolveRequest
from eqr_core.engine.trajectory import Shard
from tests.engine import tiny

ALL = Budget(depth=12, breadth=8, stop="exhausted")
WHOLE = SolveRequest(tiny.TASK, tiny.GRID, "tiny", ALL, seed=3, noise=0.1, history=True)


@pytest.mark.parametrize("stop", ["converged", "verified", "exhausted"])
def test_its_trajectories_are_those_of_the_request(stop: Stop) -> None:
    engine = tiny.engine(gain=3.0)
    (whole,) = engine.solve([WHOLE])
    part = replace(WHOLE, budget=replace(ALL, breadth=3, stop=stop), shard=Shard(4, wave=3))
    (shard,) = engine.solve([part])
    assert [(t.index, t.wave) for t in shard.trajectories] == [(4, 3), (5, 3), (6, 3)]
    for mine, its in zip(shard.trajectories, whole.trajectories[4:7], strict=True):
        assert (mine.history, mine.prediction) == (its.history, its.prediction)
        assert mine.prediction is not None


def test_it_tells_how_far_all_its_trajectories_have_come() -> None:
    engine = tiny.engine()
    request = engine.submit(replace(WHOLE, shard=Shard(8, wave=2)))
    assert engine.progress(request) is None
    for step in range(1, ALL.depth):
        assert engine.step() == []
        progress = engine.progress(request)
        assert progress is not None
        assert progress.passed == step


def test_it_ends_with_its_own_first_win() -> None:
    engine = tiny.engine(gain=3.0)
    (whole,) = engine.solve([WHOLE])
    scores = {t.index: [sum(t.history[i - 2 : i + 1]) / 3 for i in range(2, 12)]
              for t in whole.trajectories[4:7]}  # fmt: skip
    tolerance = min(score[5] for score in scores.values())
    wins = {
        index: next((i + 3 for i, value in enumerate(score) if value <= tolerance), 99)
        for index, score in scores.items()
    }
    first = min(wins.values())
    assert first < ALL.depth
    budget = replace(ALL, breadth=3, stop="converged", tolerance=tolerance)
    (shard,) = engine.solve([replace(WHOLE, budget=budget, shard=Shard(4, wave=3))])
    assert shard.finish_reason == "converged"
    assert [t.iterations for t in shard.trajectories] == [first] * 3
    won = [t.index for t in shard.trajectories if t.converged]
    assert won == [index for index, step in wins.items() if step == first]
