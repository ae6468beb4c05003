"""When orders are refused without asking a solver."""

from __future__ import annotations

import pytest

from service import breaker
from service.breaker import ENOUGH, MOST_OPEN_SECONDS, OPEN_SHARE, Breaker, Urgency
from service.problems import Refusal

FULL = Refusal("queue_full", "full", headers={"Retry-After": "7"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(breaker, "monotonic", lambda: now[0])
    return now


def test_it_opens_after_refusals_in_a_row_and_closes_again(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(2):
        for _ in range(ENOUGH - 1):
            one.refused(Urgency(0, 10.0), FULL)
            one.check(Urgency(0, 10.0))
        one.answered()
    for _ in range(ENOUGH):
        one.refused(Urgency(0, 10.0), FULL)
    with pytest.raises(Refusal) as refused:
        one.check(Urgency(0, 10.0))
    assert refused.value.headers["Retry-After"] == "7"
    clock[0] += 0.9 * OPEN_SHARE * 10.0
    with pytest.raises(Refusal):
        one.check(Urgency(0, 10.0))
    clock[0] += 0.1 * OPEN_SHARE * 10.0 + 1e-9
    one.check(Urgency(0, 10.0))
    one.refused(Urgency(0, 10.0), FULL)
    with pytest.raises(Refusal):
        one.check(Urgency(0, 10.0))


def test_who_can_wait_for_an_hour_is_not_refused_for_long(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(ENOUGH):
        one.refused(Urgency(0, 3600.0), FULL)
    clock[0] += MOST_OPEN_SECONDS
    one.check(Urgency(0, 3600.0))


def test_only_a_full_queue_opens_it(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(2 * ENOUGH):
        one.refused(Urgency(0, 10.0), Refusal("unknown_model", "there is none"))
    one.check(Urgency(0, 10.0))


def test_what_is_not_like_the_refused_is_let_through(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(ENOUGH):
        one.refused(Urgency(0, 10.0), FULL)
    for other in (Urgency(-1, 10.0), Urgency(0, 11.0), Urgency(0, 5.0)):
        one.check(other)
    for like in (Urgency(1, 10.0), Urgency(0, 9.9), Urgency(0, 10.1)):
        with pytest.raises(Refusal):
            one.check(like)
