"""What a worker does with its shard when nobody waits for it any more; no Ray here."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace

import pytest

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.trajectory import Shard
from service.fanout.worker import ShardOrder, solve
from tests.engine import tiny

ROWS = 5
BUDGET = Budget(depth=4096, breadth=ROWS, stop="exhausted")
REQUEST = SolveRequest(
    tiny.TASK, tiny.GRID, "tiny", BUDGET, seed=2, noise=0.3, id="a", shard=Shard(3, 2)
)


@pytest.fixture(autouse=True)
def told_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.fanout.worker.REPORT_SECONDS", 0.0)


@pytest.fixture
def engine() -> Engine:
    return tiny.engine(gain=3.0, tolerance=1e-9, slots=16)


def order(request: SolveRequest = REQUEST) -> ShardOrder:
    return ShardOrder(
        request, end=time.time() + 3600, key="", arithmetic="", device="cpu", slots=16, threads=1
    )


def test_a_recalled_shard_begins_no_outer_step(engine: Engine) -> None:
    recalled: Future[None] = Future()
    reports = solve(engine, order(), recalled)
    assert isinstance(next(reports), Progress)
    assert isinstance(next(reports), Progress)
    recalled.set_result(None)
    steps = engine.stats.outer_steps
    assert list(reports) == []
    assert engine.stats.outer_steps - steps <= ROWS
    assert not engine.busy


def test_one_that_was_recalled_before_it_began_takes_none(engine: Engine) -> None:
    recalled: Future[None] = Future()
    recalled.set_result(None)
    assert list(solve(engine, order(), recalled)) == []
    assert engine.stats.outer_steps == 0


def test_its_engine_solves_the_next_as_ever(engine: Engine) -> None:
    recalled: Future[None] = Future()
    reports = solve(engine, order(), recalled)
    next(reports)
    recalled.set_result(None)
    assert list(reports) == []
    short = replace(REQUEST, budget=replace(BUDGET, depth=20))
    *_, shared = solve(engine, order(short), Future())
    (alone,) = tiny.engine(gain=3.0, tolerance=1e-9, slots=16).solve([short])
    assert isinstance(shared, Answer)
    assert shared.trajectories == alone.trajectories


def test_it_ends_with_whoever_would_recall_it(engine: Engine) -> None:
    recalled: Future[None] = Future()
    reports = solve(engine, order(), recalled)
    next(reports)
    recalled.set_exception(ConnectionError("the solver has died"))
    with pytest.raises(ConnectionError, match="has died"):
        list(reports)
    assert not engine.busy
