"""Streams without Ray: the replica's events, and their form as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from service import sse
from service.orders import Order, order_of
from service.problems import Refusal
from service.replica import Solver
from service.schemas import ProgressAnswer, SolveAnswer, SolveBody
from service.settings import Settings
from tests.checkpoints import save_random

FOUR = "1...4...2..3...."
LONG = {"depth": 4096, "breadth": 1024, "stop": "exhausted"}

Event = ProgressAnswer | SolveAnswer | Refusal


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Solver:
    folder = tmp_path_factory.mktemp("model") / "one"
    save_random(folder, name="one")
    settings = Settings(models=(str(folder),), cpus=1, slots=4, queue=4, progress_per_second=20)
    return Solver(settings)


def order(deadline_ms: float = 1e6, **body: Any) -> Order:
    return order_of(SolveBody.model_validate({"grid": FOUR, **body}), deadline_ms)


async def events_of(solver: Solver, one: Order) -> list[Event]:
    return [event async for event in solver.stream(one)]


def solves(solver: Solver, finish_reason: str) -> float:
    metrics = solver._metrics.collect(solver._engine.stats)
    return sum(
        one.value
        for metric in metrics
        for one in metric.samples
        if one.name == "eqr_solves_total" and one.labels["finish_reason"] == finish_reason
    )


def test_progress_comes_before_the_answer(solver: Solver) -> None:
    before = solves(solver, "deadline")
    *told, answer = asyncio.run(events_of(solver, order(deadline_ms=600, budget=LONG)))
    assert isinstance(answer, SolveAnswer)
    assert answer.finish_reason == "deadline"
    assert len(told) >= 3
    for event in told:
        assert isinstance(event, ProgressAnswer)
        assert event.text == "".join(str(cell or ".") for row in event.grid for cell in row)
        assert event.residual is not None
        assert event.iteration >= 1
    assert solves(solver, "deadline") == before + 1


def test_a_stream_and_a_solve_end_in_the_same_answer(solver: Solver) -> None:
    one = order(budget={"depth": 7, "breadth": 2}, seed=5)
    *_, streamed = asyncio.run(events_of(solver, one))
    solved = asyncio.run(solver.solve(one))
    assert isinstance(streamed, SolveAnswer)
    assert isinstance(solved, SolveAnswer)
    apart = {"timing_ms"}
    assert streamed.model_dump(exclude=apart) == solved.model_dump(exclude=apart)


def test_a_refusal_is_the_last_event(solver: Solver) -> None:
    (event,) = asyncio.run(events_of(solver, order(model="nobody")))
    assert isinstance(event, Refusal)
    assert event.code == "unknown_model"


def test_a_reader_that_goes_away_ends_the_solve(solver: Solver) -> None:
    before = solves(solver, "cancelled")

    async def leave() -> None:
        async with aclosing(solver.stream(order(budget=LONG))) as events:
            assert isinstance(await anext(events), ProgressAnswer)
            assert solver._engine.stats.slots_busy > 0
        while solver._engine.stats.slots_busy:
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert solves(solver, "cancelled") == before + 1


ANSWER = {
    "id": "a", "task": "sudoku", "model": "one", "grid": [[1]], "text": "1", "residual": None,
    "converged": False, "verified": False, "finish_reason": "exhausted", "iterations": 1, "nfe": 1,
    "layers": 1, "breadth": {"started": 1, "converged": 0, "lost": 0}, "agreement": 1.0,
    "confidence": None, "seed": 0,
    "cached": False, "timing_ms": {"queue": 0.0, "solve": 0.0, "total": 0.0},
}  # fmt: skip
PROGRESS = ProgressAnswer(iteration=1, residual=0.5, grid=[[1]], text="1")


async def sent(events: AsyncIterator[bytes]) -> list[tuple[str, Any]]:
    found = []
    async for block in events:
        name, data = block.decode().removesuffix("\n\n").split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_events_have_the_form_of_server_sent_events() -> None:
    async def source() -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        yield PROGRESS
        yield SolveAnswer.model_validate(ANSWER)

    async def read() -> list[tuple[str, Any]]:
        stream = sse.EventStream(source(), "request", print)
        await stream.open()
        return await sent(stream.body())

    assert asyncio.run(read()) == [("progress", PROGRESS.model_dump()), ("result", ANSWER)]


def test_a_refusal_before_the_first_event_is_raised_and_a_later_one_is_an_event() -> None:
    codes: list[str] = []

    async def source(first: bool) -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        if first:
            yield PROGRESS
        raise Refusal("queue_full", "too many")

    async def read(first: bool) -> list[tuple[str, Any]]:
        stream = sse.EventStream(source(first), "request", codes.append)
        await stream.open()
        return await sent(stream.body())

    with pytest.raises(Refusal, match="queue_full"):
        asyncio.run(read(False))
    assert codes == []
    _, (name, data) = asyncio.run(read(True))
    assert name == "error"
    assert (data["code"], data["request_id"], data["status"]) == ("queue_full", "request", 429)
    assert codes == ["queue_full"]


def test_a_failure_nobody_foresaw_tells_nothing_of_the_inside() -> None:
    async def source() -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        yield PROGRESS
        raise RuntimeError("a secret")

    async def read() -> bytes:
        stream = sse.EventStream(source(), "request", print)
        await stream.open()
        return b"".join([block async for block in stream.body()])

    text = asyncio.run(read())
    assert b"internal_error" in text
    assert b"secret" not in text


def test_leaving_the_body_closes_the_source() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        try:
            yield PROGRESS
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def read() -> None:
        stream = sse.EventStream(source(), "request", print)
        await stream.open()

        async def read_all() -> None:
            async for _ in stream.body():
                pass

        reading = asyncio.create_task(read_all())
        await asyncio.sleep(0.01)
        reading.cancel()
        await closed.wait()

    asyncio.run(read())
    assert closed.is_set()
