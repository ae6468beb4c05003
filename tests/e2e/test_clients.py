"""The clients against the real service: every method over REST and gRPC, blocking and awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from eqr_core.engine.budget import Budget
from service.client import (
    AsyncEqrClient,
    Conflict,
    DeadlineExceeded,
    EqrClient,
    InvalidInput,
    NotFound,
    TimedOut,
)
from service.schemas import ProgressAnswer, SolveAnswer
from service.stubs import solver_pb2 as pb
from tests.e2e.conftest import Server, eventually, samples

FOUR = "1...4...2..3...."
NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SHORT = Budget(depth=5, breadth=3, stop="exhausted")
LONG = Budget(depth=4096, breadth=1024, stop="exhausted", deadline_ms=3_600_000)
TIMES = {"id", "timing_ms"}


@pytest.fixture(params=["http", "grpc"])
def address(request: pytest.FixtureRequest, server: Server) -> str:
    return server.url if request.param == "http" else f"grpc://{server.grpc}"


@pytest.fixture
def client(address: str) -> Iterator[EqrClient]:
    with EqrClient(address) as one:
        yield one


def plain(answer: SolveAnswer) -> dict[str, Any]:
    return answer.model_dump(exclude=TIMES)


def test_both_ways_give_one_answer(server: Server, address: str) -> None:
    def ask(one: EqrClient, grid: Any) -> dict[str, Any]:
        return plain(
            one.solve(grid, model="other", seed=7, budget=SHORT, include=["history"], cache=False)
        )

    rows = [[int(char) if char != "." else 0 for char in FOUR[i : i + 4]] for i in range(0, 16, 4)]
    with EqrClient(server.url) as rest, EqrClient(address) as other:
        expected = ask(rest, FOUR)
        assert ask(other, FOUR) == ask(other, rows) == expected
        assert len(expected["trajectories"][2]["history"]) == 5


def test_a_stream_ends_with_the_answer(client: EqrClient) -> None:
    *progress, last = client.stream(NINE, budget=Budget(stop="exhausted"))
    assert isinstance(last, SolveAnswer)
    assert progress
    assert all(isinstance(one, ProgressAnswer) and len(one.grid) == 9 for one in progress)
    events = client.stream(NINE, budget={"depth": 0})
    with pytest.raises(InvalidInput) as caught:
        next(events)
    assert caught.value.errors[0].pointer == "#/budget/depth"
    # What the service finds is the first thing that a stream tells, too.
    for grid, model, kind in (("1", None, InvalidInput), (FOUR, "nobody", NotFound)):
        with pytest.raises(kind):
            next(client.stream(grid, model=model))


def test_a_stream_that_is_closed_ends_the_solve(client: EqrClient, server: Server) -> None:
    events = client.stream(NINE, budget=LONG)
    assert isinstance(next(events), ProgressAnswer)
    assert samples(server.url)["eqr_slots_busy"] > 0
    events.close()
    eventually(lambda: samples(server.url)["eqr_slots_busy"] == 0)


def test_the_items_of_a_batch_end_one_by_one(client: EqrClient) -> None:
    puzzles = [FOUR, {"grid": FOUR, "seed": 3}, "12", [[1, "x"]], {"grid": FOUR, "seed": -1}]
    first, second, *bad = client.solve_batch(puzzles, model="other", budget=SHORT)
    assert first.answer is not None
    assert second.answer is not None
    assert (first.answer.seed, second.answer.seed) == (0, 3)
    codes = [one.error.code for one in bad if one.error is not None]
    assert codes == ["invalid_grid", "invalid_grid", "invalid_request"]
    only = client.solve_batch([[[1, "x"]]])
    assert only[0].error is not None


def test_a_job_is_waited_for(client: EqrClient) -> None:
    job = client.submit([FOUR, FOUR], model="other", budget=SHORT)
    assert job.progress.total == 2
    done = client.wait(job)
    assert done.state == "done"
    assert done.results is not None
    assert [one.answer.seed for one in done.results if one and one.answer] == [0, 0]
    assert client.job(job.id) == done
    assert client.cancel(done).state == "done"


def test_a_key_makes_one_job_of_two(client: EqrClient, address: str) -> None:
    key = f"clients-{address[:4]}-{id(client)}"
    first = client.submit([FOUR], idempotency_key=key, model="other", budget=SHORT)
    again = client.submit([FOUR], idempotency_key=key, model="other", budget=SHORT)
    assert again.id == first.id
    with pytest.raises(Conflict):
        client.submit([FOUR], idempotency_key=key, model="other", budget=SHORT, seed=1)


def test_a_job_is_not_waited_for_longer_than_told(client: EqrClient) -> None:
    job = client.submit([NINE], budget=LONG)
    with pytest.raises(TimedOut):
        client.wait(job, timeout=0.5)
    assert client.cancel(job).state == "cancelled"
    assert client.wait(job).results == [None]


def test_errors_are_the_same_both_ways(client: EqrClient) -> None:
    for grid, options, code, pointers in (
        ("11" + "." * 14, {}, "invalid_grid", {"#/grid"}),
        ([[1, 2], [3]], {}, "invalid_grid", {"#/grid"}),
        (FOUR, {"budget": {"depth": -1}}, "invalid_budget", {"#/budget/depth"}),
        (FOUR, {"seed": -1}, "invalid_request", {"#/seed"}),
        (FOUR, {"colour": "red"}, "invalid_request", {"#/colour"}),
        (FOUR, {"task": "chess"}, "invalid_request", {"#/task"}),
        (FOUR, {"budget": {"depth": "9"}}, "invalid_budget", {"#/budget/depth"}),
    ):
        with pytest.raises(InvalidInput) as caught:
            client.solve(grid, **options)
        error = caught.value
        assert (error.code, error.status) == (code, 422), error
        assert {one.pointer for one in error.errors} == pointers
        assert len(error.request_id) == 32
    for ask in (lambda: client.model("nobody"), lambda: client.solve(FOUR, model="nobody")):
        with pytest.raises(NotFound, match="nobody") as missing:
            ask()
        assert missing.value.code == "unknown_model"
    with pytest.raises(NotFound):
        client.job("nobody")


def test_models_are_listed_both_ways(client: EqrClient, server: Server) -> None:
    told = {field.name for field in pb.Model.DESCRIPTOR.fields}
    with EqrClient(server.url) as rest:
        expected = [one.model_dump(include=told) for one in rest.models()]
    found = client.models()
    assert [one.model_dump(include=told) for one in found] == expected
    assert client.model("other") == next(one for one in found if one.name == "other")


def test_a_call_that_takes_too_long_ends(server: Server) -> None:
    with EqrClient(server.url) as rest, pytest.raises(TimedOut):
        rest.solve(NINE, budget=LONG, timeout=0.5)
    # Over gRPC the service knows of the end, and answers before it, if the machine lets it.
    with EqrClient(f"grpc://{server.grpc}") as rpc:

        def in_time() -> bool:
            try:
                return rpc.solve(NINE, budget=LONG, timeout=15).finish_reason == "deadline"
            except (TimedOut, DeadlineExceeded):
                return False

        eventually(in_time)
    eventually(lambda: samples(server.url)["eqr_slots_busy"] == 0)


def test_the_same_awaited(address: str) -> None:
    async def ask() -> None:
        async with AsyncEqrClient(address) as client:
            answers = await asyncio.gather(
                *(client.solve(FOUR, model="other", seed=seed, budget=SHORT) for seed in range(3))
            )
            assert [one.seed for one in answers] == [0, 1, 2]
            (item,) = await client.solve_batch([FOUR], model="other", budget=SHORT)
            assert item.answer is not None
            job = await client.submit([FOUR], model="other", budget=SHORT)
            assert (await client.wait(job)).state == "done"
            assert (await client.job(job)).id == (await client.cancel(job)).id == job.id
            events = [one async for one in client.stream(FOUR, model="other", budget=SHORT)]
            assert isinstance(events[-1], SolveAnswer)
            names = [one.name for one in await client.models()]
            assert (await client.model(names[0])).name == names[0]
            with pytest.raises(InvalidInput):
                await client.solve("12")

    asyncio.run(ask())
