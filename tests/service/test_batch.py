"""Bodies of batches and jobs, and how their items end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eqr_core.errors import DeadlineExceeded
from service import batch
from service.batch import check_items, items_of, solve_all
from service.orders import Order
from service.problems import Refusal
from service.schemas import BatchItem, SolveAnswer
from tests.service.orders import FOUR, answer

ONE = {"grid": FOUR}


@pytest.mark.parametrize(
    ("body", "or_one", "items", "pointer"),
    [
        ([ONE, 3], False, [ONE, 3], "#"),
        ({"requests": [ONE]}, False, [ONE], "#/requests"),
        ({"requests": [ONE]}, True, [ONE], "#/requests"),
        (ONE, True, [ONE], ""),
        ({}, True, [{}], ""),
    ],
)
def test_forms_of_a_body(body: Any, or_one: bool, items: list[Any], pointer: str) -> None:
    assert items_of(body, 2, or_one=or_one) == (items, pointer)


@pytest.mark.parametrize(
    ("body", "pointer", "word"),
    [
        (None, "#", "list"),
        ([], "#", "one request or more"),
        ([ONE] * 3, "#", "3 requests are more than the limit, 2"),
        ({"requests": [ONE] * 3}, "#/requests", "limit, 2"),
        ({"requests": ONE}, "#/requests", "list"),
        ({}, "#/requests", "list"),
        ({"requests": [ONE], "x": 1}, "#/x", "no such field"),
    ],
)
def test_what_is_no_batch(body: Any, pointer: str, word: str) -> None:
    with pytest.raises(Refusal) as caught:
        items_of(body, 2)
    assert caught.value.code == "invalid_request"
    assert [problem.pointer for problem in caught.value.errors] == [pointer]
    assert word in caught.value.detail


@pytest.mark.parametrize(
    ("item", "code", "pointer"),
    [
        ({"grid": "1"}, "invalid_grid", "#/requests/1/grid"),
        ({**ONE, "budget": {"depth": 0}}, "invalid_budget", "#/requests/1/budget/depth"),
        ({**ONE, "budget": {"depth": "1"}}, "invalid_budget", "#/requests/1/budget/depth"),
        ({**ONE, "colour": 1}, "invalid_request", "#/requests/1/colour"),
        ("text", "invalid_request", "#/requests/1"),
    ],
)
def test_the_place_of_a_fault_is_within_the_whole_body(item: Any, code: str, pointer: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_items([ONE, item], "#/requests", 1000.0)
    assert caught.value.code == code
    assert [problem.pointer for problem in caught.value.errors] == [pointer]
    assert "#/requests/1" in caught.value.detail
    assert [body.grid for body in check_items([ONE], "#", 1000.0)] == [FOUR]


def run(items: list[Any], solve: Any, at_once: int = 3) -> list[BatchItem]:
    options: dict[str, Any] = {"default_deadline_ms": 1000.0, "owner": "alice", "request_id": "r"}
    return asyncio.run(solve_all(items, solve, at_once=at_once, **options))


def test_items_end_by_themselves_and_in_order(caplog: pytest.LogCaptureFixture) -> None:
    now = most = 0

    async def solve(order: Order) -> SolveAnswer:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01 * (10 - order.request.seed))
        now -= 1
        assert order.owner == "alice"
        if order.request.seed == 3:
            raise DeadlineExceeded("too late")
        if order.request.seed == 4:
            raise RuntimeError("a secret")
        return answer(order)

    items = [*({**ONE, "seed": seed} for seed in range(6)), {"grid": "1"}]
    ends = run(items, solve)
    told = [one.answer.seed if one.answer else one.error and one.error.code for one in ends]
    assert told == [0, 1, 2, "deadline_exceeded", "internal_error", 5, "invalid_grid"]
    assert most == 3
    assert all(one.error.request_id == "r" for one in ends if one.error)
    assert "secret" not in "".join(one.model_dump_json() for one in ends)
    assert "a secret" in caplog.text


def test_a_cancelled_batch_cancels_its_solves() -> None:
    cancelled = 0

    async def solve(order: Order) -> SolveAnswer:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return answer(order)

    async def scene() -> None:
        task = asyncio.create_task(
            solve_all([ONE] * 5, solve, at_once=3, default_deadline_ms=1e3, owner="", request_id="")
        )
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    assert cancelled == 3


def test_an_item_waits_for_room_as_long_as_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "FULL_SECONDS", 0.01)
    orders: list[Order] = []

    async def solve(order: Order) -> SolveAnswer:
        orders.append(order)
        if len(orders) < 3:
            raise Refusal("queue_full", "full")
        return answer(order)

    (end,) = run([ONE], solve)
    assert end.answer is not None
    assert len(orders) == 3
    assert orders[2].end == orders[0].end, "the deadline stays"
    assert {order.owner for order in orders} == {"alice"}

    async def never(order: Order) -> SolveAnswer:
        raise Refusal("queue_full", "full")

    (end,) = run([{**ONE, "budget": {"deadline_ms": 100}}], never)
    assert end.error is not None
    assert end.error.code == "queue_full"
