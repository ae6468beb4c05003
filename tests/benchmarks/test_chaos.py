"""What `python -m benchmarks.chaos` counts as a fault, without a service."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.chaos.kills import ALLOWED, KINDS, Kill, schedule
from benchmarks.chaos.ledger import PASSING, Ledger, Question
from benchmarks.chaos.report import document_of
from service.client import (
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    StreamBroken,
    TimedOut,
)
from service.client.errors import problem_of, service_error
from service.schemas import BatchItem, BreadthCount, JobAnswer, JobProgress, SolveAnswer, Timing

QUESTION = Question("1...4...2..3....", "1234432121433412", 7)
OTHER = Question("...4..1..2..3...", "3214143242313123", 8)


def answer(**fields: Any) -> SolveAnswer:
    given: dict[str, Any] = {
        "id": "a",
        "task": "sudoku",
        "model": "m",
        "grid": [[1]],
        "text": QUESTION.answer,
        "residual": 0.0,
        "converged": True,
        "verified": True,
        "finish_reason": "converged",
        "iterations": 1,
        "nfe": 1,
        "layers": 1,
        "breadth": BreadthCount(started=1, converged=1, lost=0),
        "agreement": 1.0,
        "seed": 7,
        "cached": False,
        "timing_ms": Timing(queue=0.0, solve=0.0, total=0.0),
    }
    return SolveAnswer(**{**given, **fields})


def refused(code: str) -> ClientError:
    return service_error(problem_of(code, "told", "id"))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger({QUESTION: (QUESTION.answer, "converged", True)})


def test_what_is_known_is_no_fault_and_everything_else_is(ledger: Ledger) -> None:
    ledger.check("solve", QUESTION, answer())
    ledger.check("solve", QUESTION, answer(finish_reason="deadline", verified=False, text="1"))
    assert (ledger.faults, ledger.answered) == ([], Counter(solve=2))
    ledger.check("solve", QUESTION, answer(finish_reason="exhausted"))
    assert len(ledger.faults) == 1
    ledger.check("solve", QUESTION, answer(text="1" * 16, finish_reason="deadline"))
    assert "called verified" in ledger.faults[1]


@pytest.mark.parametrize(
    ("error", "disturbed", "killed", "fault"),
    [
        (refused("not_ready"), True, "solver", False),
        (refused("not_ready"), False, "solver", True),
        (refused("internal_error"), True, "haproxy", True),
        (ConnectionFailed("cut"), True, "haproxy", False),
        (ConnectionFailed("cut"), True, "ingress", True),
        (StreamBroken("cut"), True, "ingress", False),
        (StreamBroken("cut"), False, "ingress", True),
        (StreamBroken("cut"), True, "solver", True),
        (TimedOut("late"), True, "haproxy", True),
        (AnswerUnreadable("what?", 500), True, "haproxy", True),
    ],
)
def test_failures_are_allowed_while_something_is_down(
    ledger: Ledger, error: ClientError, disturbed: bool, killed: str, fault: bool
) -> None:
    ledger.disturbed, ledger.allowed = disturbed, ALLOWED.get(killed, PASSING)
    ledger.fail("solve", error)
    assert bool(ledger.faults) is fault


def test_a_job_ends_once_with_what_is_known(ledger: Ledger) -> None:
    def job(*items: BatchItem | None, state: Any = "done") -> JobAnswer:
        now = datetime.now(UTC)
        progress = JobProgress(done=len(items), total=len(items))
        fields: dict[str, Any] = {"created_at": now, "ended_at": now, "results": list(items)}
        return JobAnswer(id="j", state=state, progress=progress, **fields)

    good = BatchItem(answer=answer())
    ledger.accept(job(), [QUESTION])
    assert ledger.unended == ["j"]
    ledger.end(job(good))
    ledger.end(job(good))
    ledger.count_jobs(1)
    assert (ledger.unended, ledger.faults) == ([], [])
    ledger.end(job(BatchItem(answer=answer(id="another"))))
    ledger.accept(job(), [OTHER])
    ledger.count_jobs(2)
    assert len(ledger.faults) == 3
    ledger.doubtful = 1
    ledger.count_jobs(2)
    ledger.count_jobs(0)
    assert len(ledger.faults) == 4


def test_a_job_without_an_answer_is_a_fault(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    ends: list[tuple[str, Any, list[BatchItem | None]]] = [
        ("a", "failed", [None]),
        ("b", "done", [BatchItem()]),
    ]
    for name, state, items in ends:
        job = JobAnswer(
            id=name,
            state=state,
            progress=JobProgress(done=0, total=1),
            created_at=now,
            ended_at=now,
            results=items,
        )
        ledger.accept(job, [QUESTION])
        ledger.end(job)
    assert len(ledger.faults) == 2


def test_kinds_take_turns_in_an_order_that_the_seed_decides() -> None:
    order = schedule(20, 3)
    assert Counter(order) == dict.fromkeys(KINDS, 4)
    assert order == schedule(20, 3) != schedule(20, 4)


def test_slow_recoveries_and_faults_do_not_pass(ledger: Ledger) -> None:
    def passed(*seconds: float | None, wanted: int = 1, interrupted: bool = False) -> bool:
        kills = [Kill(1, "store", one, {}, 0) for one in seconds]
        return bool(document_of(kills, ledger, wanted, interrupted)["passed"])

    assert passed(30.0)
    assert not passed(30.1)
    assert not passed(None)
    assert not passed(1.0, wanted=2)
    assert not passed(1.0, interrupted=True)
    ledger.faults.append("a fault")
    assert not passed(1.0)
