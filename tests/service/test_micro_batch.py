"""Which orders of a batch go in one call, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from service.micro_batch import MicroBatcher, Outcome
from service.orders import Order, order_of
from service.problems import Refusal
from service.schemas import SolveBody
from tests.service.orders import FOUR


def order(seed: int, end: float = 1000.0) -> Order:
    """One whose deadline passes at `end`: which go together must not depend on the time of day."""
    return replace(order_of(SolveBody(grid=FOUR, seed=seed), 1000.0), end=end)


def outcome(order: Order) -> Refusal:
    return Refusal("queue_full", str(order.request.seed))


class Solvers:
    """Answers each order by a refusal with its seed, once it may."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.cancelled: list[int] = []
        self.may = asyncio.Event()
        self.may.set()

    async def send(self, orders: Sequence[Order]) -> list[Outcome]:
        number = len(self.calls)
        self.calls.append([one.request.seed for one in orders])
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if 13 in self.calls[number]:
            raise RuntimeError("thirteen")
        return [outcome(one) for one in orders]


def seeds_of(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(one.detail) for one in outcomes if isinstance(one, Refusal)]


def test_orders_of_one_moment_go_in_groups_and_each_gets_its_own_end() -> None:
    async def call() -> None:
        solvers = Solvers()
        batcher = MicroBatcher(solvers.send, 3)
        ends = await asyncio.gather(*(batcher.submit(order(seed)) for seed in range(5)))
        assert solvers.calls == [[0, 1, 2], [3, 4]]
        assert seeds_of(ends) == [0, 1, 2, 3, 4]

    asyncio.run(call())


def test_orders_of_different_deadlines_go_apart() -> None:
    async def call() -> None:
        solvers = Solvers()
        batcher = MicroBatcher(solvers.send, 3)
        orders = [order(0), order(1, 5000.0), order(2), order(3, 5000.0)]
        assert seeds_of(await asyncio.gather(*map(batcher.submit, orders))) == [0, 1, 2, 3]
        assert sorted(solvers.calls) == [[0, 2], [1, 3]]

    asyncio.run(call())


def test_a_call_is_cancelled_when_nobody_waits_for_it() -> None:
    async def call() -> None:
        solvers = Solvers()
        solvers.may.clear()
        batcher = MicroBatcher(solvers.send, 2)
        runs = [asyncio.create_task(batcher.submit(order(seed))) for seed in range(4)]
        while len(solvers.calls) < 2:
            await asyncio.sleep(0)
        for run in runs[:3]:
            run.cancel()
        await asyncio.wait(runs[:3])
        for _ in range(5):
            await asyncio.sleep(0)
        assert solvers.cancelled == [0]
        solvers.may.set()
        assert seeds_of([await runs[3]]) == [3]

    asyncio.run(call())


def test_who_leaves_before_the_call_is_not_sent() -> None:
    async def call() -> None:
        solvers = Solvers()
        batcher = MicroBatcher(solvers.send, 3)
        staying, leaving = (asyncio.create_task(batcher.submit(order(seed))) for seed in (0, 1))
        await asyncio.sleep(0)
        leaving.cancel()
        assert seeds_of([await staying]) == [0]
        assert solvers.calls == [[0]]

    asyncio.run(call())


def test_a_call_that_fails_fails_all_of_its_orders() -> None:
    async def call() -> None:
        batcher = MicroBatcher(Solvers().send, 2)
        first, second, third = await asyncio.gather(
            *(batcher.submit(order(seed)) for seed in (12, 13, 14)), return_exceptions=True
        )
        assert isinstance(first, RuntimeError)
        assert isinstance(second, RuntimeError)
        assert isinstance(third, Refusal)

    asyncio.run(call())
