"""When orders are refused without asking a solver."""

from __future__ import annotations

from typing import Any

import pytest

from service import shutter
from service.orders import Order, order_of
from service.problems import Refusal
from service.schemas import SolveBody
from service.shutter import ENOUGH, SHUT_SECONDS, Shutter

FULL = Refusal("queue_full", "full", headers={"Retry-After": "7"})


def order(deadline_ms: float = 10_000, **fields: Any) -> Order:
    return order_of(SolveBody(grid="1...4...2..3....", **fields), deadline_ms)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(shutter, "monotonic", lambda: now[0])
    return now


def test_it_shuts_after_refusals_in_a_row_and_opens_again(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(2):
        for _ in range(ENOUGH - 1):
            one.refused(order(), FULL)
            one.check(order())
        one.answered()
    for _ in range(ENOUGH):
        one.refused(order(), FULL)
    with pytest.raises(Refusal) as refused:
        one.check(order())
    assert refused.value.headers["Retry-After"] == "7"
    clock[0] += SHUT_SECONDS
    one.check(order())
    one.refused(order(), FULL)
    with pytest.raises(Refusal):
        one.check(order())


def test_only_a_full_queue_shuts_it(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(2 * ENOUGH):
        one.refused(order(), Refusal("unknown_model", "there is none"))
    one.check(order())


def test_what_is_more_urgent_or_has_more_time_is_let_through(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(ENOUGH):
        one.refused(order(), FULL)
    one.check(order(priority=-1))
    one.check(order(deadline_ms=11_000))
    for like in (order(priority=1), order(deadline_ms=5_000)):
        with pytest.raises(Refusal):
            one.check(like)
