"""A request in shards on several engines gives the engine's own answer, whatever happens to them.

No Ray here: the workers are engines of this process, and die when the test says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from ray.exceptions import WorkerCrashedError

from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.async_engine import AsyncEngine
from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.engine import Engine
from eqr_core.engine.selection import Selection
from eqr_core.errors import DeadlineExceeded, QueueFull
from eqr_core.model.card import Card
from service.fanout.part import Places, Reports, Run
from service.fanout.request import run_request
from service.fanout.wave import TRIES
from service.fanout.worker import Began, Unlike
from tests.engine import tiny

DEPTH = 14
WIDE = Budget(depth=DEPTH, breadth=32, stop="exhausted")
BASE = SolveRequest(tiny.TASK, tiny.GRID, "gain3", WIDE, seed=5, id="a", history=True)
SAME = (
    *("id", "grid", "text", "residual", "converged", "verified", "finish_reason", "iterations"),
    *("layers", "agreement", "confidence", "seed", "lost"),
)
"""All that a user sees of an answer, but for what cut trajectories had done by then."""


@pytest.fixture(scope="module")
def engines() -> Iterator[list[AsyncEngine]]:
    """One for here and two workers."""
    found = [AsyncEngine(engine()) for _ in range(3)]
    for one in found:
        one.start()
    yield found
    for one in found:
        one.stop()


@pytest.fixture(autouse=True)
def told_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eqr_core.engine.async_engine.PROGRESS_SECONDS", 0.0)


class Workers:
    """Two engines that take shards in turn; `fate` may raise before any report of a shard."""

    def __init__(
        self, engines: Sequence[AsyncEngine], fate: Callable[[SolveRequest, int], None]
    ) -> None:
        self._engines, self._fate = engines, fate
        self.counted: Counter[str] = Counter()
        self.running = 0

    def places(self, here: Run | None = None) -> Places:
        return Places(here or self._engines[0].stream, self._away, self._count)

    def _count(self, outcome: str) -> None:
        self.counted[outcome] += 1

    async def _away(self, asked: SolveRequest) -> Reports:
        self.running += 1
        worker = self._engines[1 + self.running % 2]
        self._fate(asked, 0)
        yield Began()
        number = 1
        async with aclosing(worker.stream(asked)) as events:
            async for event in events:
                self._fate(asked, number)
                number += 1
                yield event


def well(asked: SolveRequest, report: int) -> None:
    """Nothing happens."""


def halves(width: int, depth: int) -> list[int]:
    """A third each."""
    own = -(-width // 3)
    sizes = [own]
    while sum(sizes) < width:
        sizes.append(min(own, width - sum(sizes)))
    return sizes


def solve(asked: SolveRequest, workers: Workers, here: Run | None = None) -> Answer:
    async def run() -> Answer:
        limit = asked.budget.deadline_ms
        end = time.monotonic() + (3600 if limit is None else limit / 1e3)
        places = workers.places(here)
        request = run_request(workers._engines[0].engine, asked, halves, places, end)
        async with aclosing(request) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return event
        raise AssertionError("no answer")

    return asyncio.run(run())


def alone(asked: SolveRequest) -> Answer:
    (answer,) = engine().solve([asked])
    return answer


def engine() -> Engine:
    """Models whose trajectories settle sooner or later, but not alike."""
    loaded = [
        (
            tiny.weights(tiny.config(), gain=gain),
            Card(name(gain), "sudoku", tiny.config(), ("4x4",)),
        )
        for gain in (1.0, 3.0)
    ]
    return Engine.of(loaded, slots=16)


def name(gain: float) -> str:
    return f"gain{gain:g}"


def assert_same(shared: Answer, expected: Answer) -> None:
    for field in SAME:
        assert getattr(shared, field) == getattr(expected, field), field
    ended = [
        [replace(t) for t in answer.trajectories if t.outcome not in ("cut", "stopped")]
        for answer in (shared, expected)
    ]
    assert ended[0] == ended[1]
    if expected.finish_reason not in ("converged", "verified"):
        assert shared.nfe == expected.nfe


@pytest.fixture(scope="module")
def won() -> list[tuple[int, SolveRequest]]:
    """Requests that a later wave wins, and that wave; some with several winners at one step."""
    found = []
    for seed, noise, gain in ((2, 0.3, 3.0), (3, 0.0, 1.0)):
        asked = replace(BASE, seed=seed, noise=noise, model=name(gain))
        whole = alone(asked).trajectories
        scores = [min(sum(t.history[i - 2 : i + 1]) / 3 for i in range(2, DEPTH)) for t in whole]
        waves = [scores[i:j] for i, j in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32))]
        best = min(waves[0])
        for number, wave in enumerate(waves[1:], 1):
            if min(wave) < best:
                budget = replace(WIDE, stop="converged", tolerance=best * (1 - 1e-9))
                found.append((number, replace(asked, budget=budget)))
                best = min(wave)
    assert {wave for wave, _ in found} >= {2, 3, 4, 5}
    return found


@pytest.mark.parametrize("selection", ["residual", "majority"])
@pytest.mark.parametrize("stop", ["converged", "verified", "exhausted"])
def test_without_a_win_all_is_the_same(
    engines: list[AsyncEngine], stop: Stop, selection: Selection
) -> None:
    for breadth, nfe in ((23, None), (32, 301)):
        budget = replace(WIDE, stop=stop, breadth=breadth, nfe=nfe)
        asked = replace(BASE, budget=budget, selection=selection, noise=0.05)
        workers = Workers(engines, well)
        assert_same(solve(asked, workers), alone(asked))
        assert workers.counted["done"] == workers.counted.total() > 0


def test_a_wave_may_have_less_depth_than_the_budgets_patience(engines: list[AsyncEngine]) -> None:
    budget = replace(WIDE, nfe=2 * WIDE.breadth, halt="unchanged", patience=6)
    asked = replace(BASE, budget=budget)
    assert_same(solve(asked, Workers(engines, well)), alone(asked))


def test_a_wave_is_won_at_the_same_step(
    engines: list[AsyncEngine], won: list[tuple[int, SolveRequest]]
) -> None:
    cut = winners = 0
    for wave, asked in won:
        workers = Workers(engines, well)
        shared = solve(asked, workers)
        assert_same(shared, alone(asked))
        assert shared.trajectories[-1].wave == wave
        assert workers.counted.keys() <= {"done", "cut"}
        cut += workers.counted["cut"]
        winners += shared.finished_converged
    assert cut
    assert winners > len(won)


def test_the_majority_of_the_winners_is_the_same(
    engines: list[AsyncEngine], won: list[tuple[int, SolveRequest]]
) -> None:
    for _, asked in won:
        asked = replace(asked, selection="majority")
        assert_same(solve(asked, Workers(engines, well)), alone(asked))


def test_workers_that_die_change_nothing(
    engines: list[AsyncEngine], won: list[tuple[int, SolveRequest]]
) -> None:
    dice, retried = random.Random(0), 0
    for asked in (BASE, *(asked for _, asked in won)):
        deaths: Counter[str] = Counter()

        def fate(shard: SolveRequest, report: int, deaths: Counter[str] = deaths) -> None:
            part = shard.id.partition(".")[0]
            if deaths[part] < TRIES - 1 and dice.random() < 0.2:
                deaths[part] += 1
                raise WorkerCrashedError

        workers = Workers(engines, fate)
        assert_same(solve(asked, workers), alone(asked))
        assert workers.counted["lost"] == 0
        retried += workers.counted["retried"]
    assert retried > 8


def test_what_stays_lost_is_told_and_the_rest_answers(engines: list[AsyncEngine]) -> None:
    def fate(shard: SolveRequest, report: int) -> None:
        if shard.shard is not None and shard.shard.first == 11 and report:
            raise WorkerCrashedError

    workers = Workers(engines, fate)
    answer = solve(BASE, workers)
    whole = alone(BASE)
    assert workers.counted == {"done": 1, "retried": TRIES - 1, "lost": 1}
    assert (answer.lost, answer.started, answer.finish_reason) == (11, 21, "exhausted")
    kept = [t for t in whole.trajectories if not 11 <= t.index < 22]
    assert list(answer.trajectories) == kept
    best = min(kept, key=lambda t: (t.residual, t.index))
    assert (answer.grid, answer.residual) == (best.grid, best.residual)


def test_a_worker_of_another_kind_is_not_asked_to_answer(engines: list[AsyncEngine]) -> None:
    workers = Workers(engines, well)

    async def unlike(asked: SolveRequest) -> Reports:
        yield Unlike("other", "node")

    workers._away = unlike  # type: ignore[method-assign]
    assert_same(solve(BASE, workers), alone(BASE))
    assert workers.counted == {"unlike": 2}


def test_shards_that_nobody_takes_run_here(engines: list[AsyncEngine]) -> None:
    workers = Workers(engines, well)
    left: list[str] = []

    async def never(asked: SolveRequest) -> Reports:
        try:
            await asyncio.Event().wait()
            yield Began()
        finally:
            left.append(asked.id)

    workers._away = never  # type: ignore[method-assign]
    assert_same(solve(BASE, workers), alone(BASE))
    assert workers.counted == {"taken_back": 2}
    assert left == ["a/11.1", "a/22.1"]


def test_a_deadline_gives_the_best_so_far(engines: list[AsyncEngine]) -> None:
    budget = Budget(depth=4096, breadth=30, stop="exhausted", deadline_ms=400)
    workers = Workers(engines, well)
    answer = solve(replace(BASE, budget=budget, history=False), workers)
    assert answer.finish_reason == "deadline"
    assert (answer.started, answer.lost) == (30, 0)
    best = min(answer.trajectories, key=lambda t: (t.residual, t.index))
    assert (answer.grid, answer.residual) == (best.grid, best.residual)
    assert {t.outcome for t in answer.trajectories} == {"stopped"}


def test_a_deadline_that_is_over_is_told(engines: list[AsyncEngine]) -> None:
    budget = replace(WIDE, deadline_ms=1e-6)
    with pytest.raises(DeadlineExceeded):
        solve(replace(BASE, budget=budget), Workers(engines, well))


def test_a_worker_that_overstays_the_deadline_is_not_waited_for(
    engines: list[AsyncEngine],
) -> None:
    async def deaf(asked: SolveRequest) -> Reports:
        yield Began()
        await asyncio.Event().wait()

    workers = Workers(engines, well)
    workers._away = deaf  # type: ignore[method-assign]
    budget = replace(WIDE, deadline_ms=300)
    answer = solve(replace(BASE, budget=budget), workers)
    assert answer.lost == 21
    assert workers.counted == {"lost": 2}


def test_only_a_new_request_is_refused_by_a_full_engine(engines: list[AsyncEngine]) -> None:
    refusals = 0

    async def full(asked: SolveRequest) -> Reports:
        nonlocal refusals
        refusals += 1
        raise QueueFull("full")
        yield

    with pytest.raises(QueueFull):
        solve(BASE, Workers(engines, well), full)
    assert refusals == 1

    calls = 0

    async def full_later(asked: SolveRequest) -> Reports:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise QueueFull("full")
        async with aclosing(engines[0].stream(asked)) as events:
            async for event in events:
                yield event

    asked = replace(BASE, budget=replace(WIDE, stop="converged", breadth=4))
    assert_same(solve(asked, Workers(engines, well), full_later), alone(asked))
    assert calls == 5


def test_who_goes_away_leaves_nothing_running(engines: list[AsyncEngine]) -> None:
    budget = Budget(depth=4096, breadth=30, stop="exhausted")
    workers = Workers(engines, well)

    async def run() -> None:
        asked = replace(BASE, budget=budget, history=False)
        end = time.monotonic() + 3600
        request = run_request(engines[0].engine, asked, halves, workers.places(), end)
        async with aclosing(request) as events:
            async for _ in events:
                if all(one.engine.stats.slots_busy == 10 for one in engines):
                    return

    asyncio.run(run())
    assert workers.counted == {"cancelled": 2}
    end = time.monotonic() + 60
    while any(one.engine.stats.requests_active for one in engines):
        assert time.monotonic() < end, "an engine still works"
        time.sleep(0.01)


def test_a_shard_that_failed_runs_here_when_no_other_worker_comes(
    engines: list[AsyncEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.fanout.wave.RETRY_SECONDS", 0.5)
    monkeypatch.setattr("service.fanout.wave.WAKE_SECONDS", 0.1)
    workers = Workers(engines, well)
    tries: Counter[str] = Counter()

    async def away(asked: SolveRequest) -> Reports:
        shard = asked.id.partition(".")[0]
        tries[shard] += 1
        if tries[shard] > 1:
            await asyncio.Event().wait()
        yield Began()
        raise WorkerCrashedError

    workers._away = away  # type: ignore[method-assign]
    assert_same(solve(BASE, workers), alone(BASE))
    assert workers.counted == {"retried": 2, "taken_back": 2}
