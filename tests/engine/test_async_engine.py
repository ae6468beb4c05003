from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.async_engine import AsyncEngine
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.errors import DeadlineExceeded, EngineStopped, EqrError, GridError, QueueFull
from tests.engine import tiny

ENDLESS = Budget(depth=4096, breadth=1024, stop="exhausted")
SHORT = Budget(depth=4, breadth=3, stop="exhausted")


def ask(budget: Budget = SHORT, seed: int = 0, name: str = "") -> SolveRequest:
    return SolveRequest(tiny.TASK, tiny.GRID, "tiny", budget, seed=seed, id=name)


@pytest.fixture
def started() -> Iterator[AsyncEngine]:
    engine = AsyncEngine(tiny.engine(slots=8))
    engine.start()
    yield engine
    engine.stop()


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0.002)


def test_many_submissions_get_the_blocking_engines_answers(started: AsyncEngine) -> None:
    async def main() -> list[Answer]:
        return await asyncio.gather(*(started.submit(ask(seed=i)) for i in range(50)))

    answers = asyncio.run(main())
    expected = tiny.engine(slots=8).solve([ask(seed=i) for i in range(50)])
    assert [a.trajectories for a in answers] == [a.trajectories for a in expected]
    assert started.healthy


def test_two_event_loops_in_two_threads_share_one_engine(started: AsyncEngine) -> None:
    answers: dict[int, Answer] = {}

    def ask_from_a_loop_of_its_own(seed: int) -> None:
        answers[seed] = asyncio.run(started.submit(ask(seed=seed)))

    threads = [threading.Thread(target=ask_from_a_loop_of_its_own, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = tiny.engine().solve([ask(seed=i) for i in range(4)])
    assert [answers[i].grid for i in range(4)] == [a.grid for a in expected]


def test_errors_of_a_request_reach_its_submitter_only(started: AsyncEngine) -> None:
    async def main() -> None:
        wrong = SolveRequest(tiny.TASK, ((1, 1, 0, 0), *tiny.GRID[1:]), "tiny", SHORT)
        bad, good = await asyncio.gather(
            started.submit(wrong), started.submit(ask()), return_exceptions=True
        )
        assert isinstance(bad, GridError)
        assert isinstance(good, Answer)

    asyncio.run(main())
    assert started.healthy


def test_cancelling_the_awaiting_task_frees_the_slots(started: AsyncEngine) -> None:
    async def main() -> None:
        task = asyncio.create_task(started.submit(ask(ENDLESS)))
        await until(lambda: started.engine.stats.slots_busy == 8)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer = await started.submit(ask())
        assert answer.finish_reason == "exhausted"
        await until(lambda: started.engine.stats.requests_active == 0)
        assert started.engine.stats.trajectories["stopped"] >= 8

    asyncio.run(main())


def test_cancel_by_id_answers_with_what_there_is(started: AsyncEngine) -> None:
    async def main() -> Answer:
        task = asyncio.create_task(started.submit(ask(ENDLESS, name="long")))
        await until(lambda: started.engine.stats.outer_steps > 30)
        started.cancel("long")
        return await task

    answer = asyncio.run(main())
    assert answer.finish_reason == "cancelled"
    assert answer.nfe >= 8


def test_a_stream_shows_progress_and_then_the_answer(started: AsyncEngine) -> None:
    async def main() -> list[Progress | Answer]:
        budget = Budget(depth=400, breadth=1)
        return [event async for event in started.stream(ask(budget))]

    *progress, answer = asyncio.run(main())
    assert isinstance(answer, Answer)
    assert answer.grid == tiny.engine().solve([ask(Budget(depth=400, breadth=1))])[0].grid
    assert progress
    iterations = [event.iteration for event in progress if isinstance(event, Progress)]
    assert len(iterations) == len(progress) < 400
    assert iterations == sorted(set(iterations))
    assert iterations[0] >= 1


def test_a_slow_reader_misses_progress_and_delays_nobody(started: AsyncEngine) -> None:
    async def main() -> tuple[int, Answer]:
        stream = started.stream(ask(Budget(depth=300, breadth=1)))
        first = await anext(stream)
        assert isinstance(first, Progress)
        await until(lambda: started.engine.stats.requests_active == 0)
        rest = [event async for event in stream]
        assert isinstance(rest[-1], Answer)
        return len(rest), rest[-1]

    left, answer = asyncio.run(main())
    assert left <= 2
    assert answer.iterations == 300


def test_leaving_a_stream_early_cancels_its_request(started: AsyncEngine) -> None:
    async def main() -> None:
        stream = started.stream(ask(ENDLESS))
        await anext(stream)
        await stream.aclose()
        await until(lambda: started.engine.stats.requests_active == 0)

    asyncio.run(main())
    assert started.healthy


def test_the_death_of_the_stepping_thread_fails_all_who_wait_and_all_who_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny.engine(slots=8)
    asynchronous = AsyncEngine(engine)
    asynchronous.start()

    def run(*args: object) -> None:
        raise MemoryError("no more rows")

    async def main() -> None:
        waiting = [asyncio.create_task(asynchronous.submit(ask(ENDLESS))) for _ in range(3)]
        events = asynchronous.stream(ask(ENDLESS))
        await anext(events)
        await until(lambda: engine.stats.requests_active == 4)
        assert asynchronous.healthy
        (lane,) = engine._lanes.values()
        monkeypatch.setattr(lane._runner, "run", run)
        for task in waiting:
            with pytest.raises(EngineStopped, match="MemoryError: no more rows"):
                await task
        with pytest.raises(EngineStopped, match="MemoryError: no more rows"):
            async for _ in events:
                pass
        assert not asynchronous.healthy
        with pytest.raises(EngineStopped, match="MemoryError: no more rows"):
            await asynchronous.submit(ask())
        await asynchronous.drain()

    asyncio.run(main())
    asynchronous.stop()


def test_draining_finishes_what_is_there_and_takes_nothing_new(started: AsyncEngine) -> None:
    async def main() -> None:
        budget = Budget(depth=200, breadth=8, stop="exhausted")
        tasks = [asyncio.create_task(started.submit(ask(budget, i))) for i in range(5)]
        await asyncio.sleep(0)
        draining = asyncio.create_task(started.drain())
        await asyncio.sleep(0)
        assert not started.healthy
        with pytest.raises(EngineStopped, match="draining"):
            await started.submit(ask())
        await draining
        assert started.engine.stats.requests_active == 0
        answers = await asyncio.gather(*tasks)
        assert [a.finish_reason for a in answers] == ["exhausted"] * 5
        await started.drain()

    asyncio.run(main())


def test_stopping_fails_those_who_wait() -> None:
    engine = AsyncEngine(tiny.engine())

    async def main() -> None:
        with pytest.raises(EngineStopped, match="not started"):
            await engine.submit(ask())
        engine.start()
        task = asyncio.create_task(engine.submit(ask(ENDLESS)))
        await until(lambda: engine.engine.stats.slots_busy > 0)
        await asyncio.to_thread(engine.stop)
        with pytest.raises(EngineStopped, match="stopped"):
            await task
        assert not engine.healthy
        with pytest.raises(EngineStopped, match="stopped"):
            await engine.submit(ask())
        with pytest.raises(EngineStopped, match="already started"):
            engine.start()

    asyncio.run(main())


def test_a_deadline_before_any_outer_step_is_an_error(started: AsyncEngine) -> None:
    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await started.submit(ask(Budget(deadline_ms=1e-6)))

    asyncio.run(main())


def test_two_full_grids_of_one_id_at_once_both_hear_of_it(started: AsyncEngine) -> None:
    async def main() -> None:
        full = SolveRequest(tiny.TASK, tiny.FULL, "tiny", id="mine")
        both = await asyncio.gather(
            started.submit(full), started.submit(full), return_exceptions=True
        )
        assert {type(one) for one in both} <= {Answer, EqrError}
        assert any(isinstance(one, Answer) for one in both)

    asyncio.run(main())


def test_a_full_queue_refuses() -> None:
    engine = AsyncEngine(tiny.engine(slots=1, queue=2))
    engine.start()

    async def main() -> None:
        tasks = [asyncio.create_task(engine.submit(ask(ENDLESS))) for _ in range(6)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        assert all(isinstance(task.exception(), QueueFull) for task in done)
        assert 2 <= len(pending) <= 5
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    engine.stop()


def test_an_idle_engine_does_not_spin(
    started: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    step = Engine.step

    def counted(self: Engine) -> list[Answer]:
        steps.append(1)
        return step(self)

    monkeypatch.setattr(Engine, "step", counted)

    async def main() -> None:
        await started.submit(ask())
        before = len(steps)
        await asyncio.sleep(0.1)
        assert len(steps) == before > 0

    asyncio.run(main())
