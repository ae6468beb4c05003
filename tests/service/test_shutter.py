"""When orders are refused without asking a solver."""

from __future__ import annotations

import pytest

from service import shutter
from service.problems import Refusal
from service.shutter import ENOUGH, SHUT_SECONDS, Ask, Shutter

FULL = Refusal("queue_full", "full", headers={"Retry-After": "7"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(shutter, "monotonic", lambda: now[0])
    return now


def test_it_shuts_after_refusals_in_a_row_and_opens_again(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(2):
        for _ in range(ENOUGH - 1):
            one.refused(Ask(0, 10.0), FULL)
            one.check(Ask(0, 10.0))
        one.answered()
    for _ in range(ENOUGH):
        one.refused(Ask(0, 10.0), FULL)
    with pytest.raises(Refusal) as refused:
        one.check(Ask(0, 10.0))
    assert refused.value.headers["Retry-After"] == "7"
    clock[0] += SHUT_SECONDS
    one.check(Ask(0, 10.0))
    one.refused(Ask(0, 10.0), FULL)
    with pytest.raises(Refusal):
        one.check(Ask(0, 10.0))


def test_only_a_full_queue_shuts_it(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(2 * ENOUGH):
        one.refused(Ask(0, 10.0), Refusal("unknown_model", "there is none"))
    one.check(Ask(0, 10.0))


def test_what_is_more_urgent_or_has_more_time_is_let_through(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(ENOUGH):
        one.refused(Ask(0, 10.0), FULL)
    one.check(Ask(-1, 10.0))
    one.check(Ask(0, 11.0))
    for like in (Ask(1, 10.0), Ask(0, 5.0), Ask(0, 10.1)):
        with pytest.raises(Refusal):
            one.check(like)


def test_the_default_time_is_like_itself_alone(clock: list[float]) -> None:
    one = Shutter()
    for _ in range(ENOUGH):
        one.refused(Ask(), FULL)
    one.check(Ask(0, 1.0))
    with pytest.raises(Refusal):
        one.check(Ask())
