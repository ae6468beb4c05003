"""When orders are refused without asking a solver."""

from __future__ import annotations

import pytest

from service import breaker
from service.breaker import ENOUGH, LEAST_OPEN_SECONDS, Breaker, Urgency
from service.problems import Refusal

FULL = Refusal("queue_full", "full", headers={"Retry-After": "7"}, holds_seconds=0.5)
COUNTED = Refusal("queue_full", "full")
USUAL = Urgency(0, 10.0)
ANSWER = object()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(breaker, "monotonic", lambda: now[0])
    return now


def test_it_opens_after_refusals_in_a_row_and_closes_again(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(2):
        for _ in range(ENOUGH - 1):
            one.ended([(USUAL, FULL)])
            one.check(USUAL)
        one.ended([(USUAL, ANSWER)])
    for _ in range(ENOUGH):
        one.ended([(USUAL, FULL)])
    with pytest.raises(Refusal, match=r"10\.0 s of priority 0 .* for 0\.50 s") as told:
        one.check(USUAL)
    assert told.value.headers["Retry-After"] == "7"
    clock[0] += 0.49
    with pytest.raises(Refusal):
        one.check(USUAL)
    clock[0] += 0.01 + 1e-9
    one.check(USUAL)
    one.ended([(USUAL, FULL)])
    with pytest.raises(Refusal):
        one.check(USUAL)


def test_it_is_open_for_a_moment_where_the_solver_knows_of_no_time(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(ENOUGH):
        one.ended([(USUAL, COUNTED)])
    with pytest.raises(Refusal):
        one.check(USUAL)
    clock[0] += LEAST_OPEN_SECONDS + 1e-9
    one.check(USUAL)


def test_many_refusals_of_one_call_count_once(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(ENOUGH - 1):
        one.ended([(USUAL, FULL)] * 8)
        one.check(USUAL)
    one.ended([(USUAL, FULL)] * 7 + [(USUAL, ANSWER)])
    one.ended([(USUAL, FULL)] * 8)
    one.check(USUAL)


def test_only_a_full_queue_opens_it(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(2 * ENOUGH):
        one.ended([(USUAL, Refusal("unknown_model", "there is none"))])
    one.check(USUAL)


def test_what_is_not_like_the_refused_is_let_through(clock: list[float]) -> None:
    one = Breaker()
    for _ in range(ENOUGH):
        one.ended([(USUAL, FULL)])
    for other in (Urgency(-1, 10.0), Urgency(0, 11.0), Urgency(0, 5.0)):
        one.check(other)
    for like in (Urgency(1, 10.0), Urgency(0, 9.9), Urgency(0, 10.1)):
        with pytest.raises(Refusal):
            one.check(like)
