"""The cache over a real Valkey, with solves that the tests end by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from service.cache import MAX_BYTES, Cache, key_of, suited
from service.orders import Order
from service.problems import Refusal
from service.schemas import SolveAnswer
from service.store import Store
from tests.service.orders import FOUR, answer, model, order

MODEL = model()


class Solves:
    """Stands where the solvers are: every order waits until the test gives its answer."""

    def __init__(self) -> None:
        self.begun: list[tuple[Order, asyncio.Future[SolveAnswer]]] = []

    async def run(self, one: Order) -> SolveAnswer:
        result: asyncio.Future[SolveAnswer] = asyncio.get_running_loop().create_future()
        self.begun.append((one, result))
        return await result

    async def wait_for(self, count: int) -> None:
        while len(self.begun) < count:
            await asyncio.sleep(0.001)

    def answer(self, index: int, **fields: Any) -> None:
        one, result = self.begun[index]
        result.set_result(answer(one, **fields))


Scene = Callable[[Cache, Solves], Coroutine[Any, Any, None]]


async def boarded(cache: Cache, count: int) -> None:
    """Wait until so many wait for one solve, and it has begun."""
    while [flight.waiting for flight in cache._flights.values()] != [count]:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)


def play(url: str | None, scene: Scene) -> list[bool]:
    """Hits and misses of `scene`."""
    counted: list[bool] = []

    async def on_stage() -> None:
        store = Store(url)
        await scene(Cache(store, 60.0, counted.append), Solves())
        await store.close()

    asyncio.run(on_stage())
    return counted


def test_an_answer_is_computed_once(store_url: str) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        first = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await solves.wait_for(1)
        assert solves.begun[0][0].request.model == "m"
        solves.answer(0)
        one = await first
        again = order()
        two = await cache.solve(again, MODEL, solves.run)
        assert (one.cached, two.cached) == (False, True)
        assert two.id == again.request.id != one.id
        assert two.timing_ms.solve == 0
        same = {"id": one.id, "cached": False, "timing_ms": one.timing_ms}
        assert two.model_copy(update=same) == one

    assert play(store_url, scene) == [False, True]
    with Redis.from_url(store_url) as redis:
        (key,) = redis.keys("eqr:answer:*")
        assert 0 < redis.pttl(key) <= 60_000
        redis.set(key, b'{"not": "an answer"}')

    async def unreadable(cache: Cache, solves: Solves) -> None:
        first = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await solves.wait_for(1)
        solves.answer(0)
        assert not (await first).cached

    assert play(store_url, unreadable) == [False]


@pytest.mark.parametrize("kept", [True, False])
def test_those_who_ask_the_same_wait_for_one_solve(store_url: str, kept: bool) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        end = order().end  # of all: who would wait too long for the first solves by himself
        orders = [replace(order(), end=end) for _ in range(20)]
        asked = [asyncio.create_task(cache.solve(one, MODEL, solves.run)) for one in orders]
        await boarded(cache, 20)
        solves.answer(0)
        answers = await asyncio.gather(*asked)
        assert sorted(one.cached for one in answers) == [False] + [True] * 19
        assert len({one.id for one in answers}) == 20
        assert len(solves.begun) == 1

    assert sorted(play(store_url if kept else None, scene)) == [False] + [True] * 19


def test_the_first_may_leave_the_last_ends_the_solve(store_url: str) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        first = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await solves.wait_for(1)
        second = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await boarded(cache, 2)
        first.cancel()
        await boarded(cache, 1)
        assert not solves.begun[0][1].cancelled()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await asyncio.sleep(0)
        assert solves.begun[0][1].cancelled()
        third = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await solves.wait_for(2)
        solves.answer(1)
        assert not (await third).cached

    play(store_url, scene)


def test_nobody_waits_beyond_the_own_deadline(store_url: str) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        slow = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await solves.wait_for(1)
        hurried = order(budget={"deadline_ms": 1000.0})
        fast = asyncio.create_task(cache.solve(hurried, MODEL, solves.run))
        await solves.wait_for(2)
        solves.answer(1, finish_reason="deadline")
        assert (await fast).finish_reason == "deadline"
        solves.answer(0)
        assert (await slow).finish_reason == "converged"

    assert play(store_url, scene) == [False, False]


@pytest.mark.parametrize("refused", [True, False])
def test_an_answer_that_came_too_early_is_not_another_orders(store_url: str, refused: bool) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        hurried = order(budget={"deadline_ms": 1000.0})
        fast = asyncio.create_task(cache.solve(hurried, MODEL, solves.run))
        await solves.wait_for(1)
        slow = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await boarded(cache, 2)
        if refused:
            solves.begun[0][1].set_exception(Refusal("deadline_exceeded", "too late"))
        else:
            solves.answer(0, finish_reason="deadline")
        await solves.wait_for(2)
        solves.answer(1)
        assert (await slow).finish_reason == "converged"
        await asyncio.gather(fast, return_exceptions=True)

    assert play(store_url, scene) == [False, False]


def test_a_refusal_is_everybodys_and_nothing_is_kept(store_url: str) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        asked = [asyncio.create_task(cache.solve(order(), MODEL, solves.run)) for _ in range(3)]
        await boarded(cache, 3)
        solves.begun[0][1].set_exception(Refusal("queue_full", "full"))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in outcomes] == [Refusal] * 3

    play(store_url, scene)
    with Redis.from_url(store_url) as redis:
        assert redis.keys() == []


@pytest.mark.parametrize(
    "fields", [{"finish_reason": "deadline"}, {"finish_reason": "cancelled"}, {"lost": 1}]
)
def test_what_another_solve_would_answer_otherwise_is_not_kept(
    store_url: str, fields: dict[str, Any]
) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        for index in range(2):
            asked = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
            await solves.wait_for(index + 1)
            solves.answer(index, **fields)
            assert not (await asked).cached

    assert play(store_url, scene) == [False, False]


def test_a_huge_answer_is_not_kept(store_url: str) -> None:
    async def scene(cache: Cache, solves: Solves) -> None:
        asked = asyncio.create_task(cache.solve(order(), MODEL, solves.run))
        await solves.wait_for(1)
        one, result = solves.begun[0]
        result.set_result(answer(one).model_copy(update={"text": "1" * MAX_BYTES}))
        await asked

    play(store_url, scene)
    with Redis.from_url(store_url) as redis:
        assert redis.keys() == []


def test_the_key_is_what_the_answer_follows_from() -> None:
    rows = [[1, 0, 0, 0], [4, 0, 0, 0], [2, 0, 0, 3], [0, 0, 0, 0]]
    same = [
        order(),
        order(grid=rows, task="sudoku", priority=7, budget={"deadline_ms": 5.0}),
        order(budget={"tolerance": MODEL.tolerance}),
        order(cache=False),
    ]
    others = [
        order(grid=FOUR[:-1] + "4"),
        *(order(budget={name: 3}) for name in ("depth", "breadth", "nfe")),
        order(budget={"tolerance": 0.5}),
        *(order(budget={"stop": stop}) for stop in ("verified", "exhausted")),
        order(seed=1),
        order(noise=0.1),
        order(selection="majority"),
        order(include=["trajectories"]),
        order(include=["history"]),
    ]
    assert len({key_of(one, MODEL) for one in same}) == 1
    keys = [key_of(one, MODEL) for one in (same[0], *others)]
    keys += [key_of(same[0], one) for one in (model(digest="e"), model(name="n"))]
    assert len(set(keys)) == len(keys)


def test_the_model_is_the_one_a_solver_would_choose() -> None:
    wide = model("wide", sizes=("4x4", "9x9"))
    models = [wide, model("narrow"), model("later")]
    assert suited(models, order()) == models[1]
    assert suited(models, order(model="wide")) == wide
    assert suited(models, order(grid="." * 81)) == wide
    assert suited(models, order(model="narrow", grid="." * 81)) is None
    assert suited(models, order(model="nobody")) is None
