"""What the service does before it stops."""

from __future__ import annotations

from typing import Any

from service.local import drain


class Ingress:
    """A handle whose one replica answers so, one call after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def broadcast(self, method: str) -> Ingress:
        self.asked.append(method)
        return self

    def results(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert timeout_s
        assert return_exceptions
        answer = self.answers.pop(0)
        if answer is TimeoutError:
            raise answer
        return [answer]


def test_a_replica_too_busy_to_answer_is_not_idle() -> None:
    ingress = Ingress(None, TimeoutError(), TimeoutError, 1, 0)
    drain(ingress, seconds=60)
    assert ingress.asked == ["drain", *["in_flight"] * 4]


def test_a_dead_replica_is_idle() -> None:
    ingress = Ingress(None, RuntimeError("dead"))
    drain(ingress, seconds=60)
    assert ingress.asked == ["drain", "in_flight"]


def test_what_still_runs_is_cut_off() -> None:
    ingress = Ingress(None, 1, None, 0)
    drain(ingress, seconds=0)
    assert ingress.asked == ["drain", "in_flight", "cut", "in_flight"]
