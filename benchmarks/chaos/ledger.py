"""What was asked, what came of it, and what must not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from service.client import (
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    ServiceError,
    StreamBroken,
    TimedOut,
)
from service.schemas import BatchItem, JobAnswer, SolveAnswer

PASSING = frozenset({"not_ready", "queue_full", "store_unavailable", "deadline_exceeded"})
"""Codes that a disturbed service may answer with for a while."""
CUT_OFF = "cut_off"
"""No status came: the connection broke."""
BROKEN = "broken_stream"
"""A stream had begun (over REST with its status, over gRPC with its first event) and broke."""


@dataclass(frozen=True)
class Question:
    """A puzzle, its one answer by the rules, and the seed to solve it with."""

    grid: str
    answer: str
    seed: int
    wide: bool = False
    """Whether it is asked with a budget that the service shares with workers."""


Known = tuple[str, str, bool]
"""Text, finish reason and whether it is verified: what a question comes to without disturbance."""


def known_of(answer: SolveAnswer) -> Known:
    """What an answer says that must be the same every time."""
    return answer.text, answer.finish_reason, answer.verified


@dataclass(frozen=True)
class Failure:
    """A request that ended without an answer, as it may while something is down."""

    moment: float
    kind: str
    code: str


class Ledger:
    """Holds every answer against what is known. `faults` are bars broken, in words."""

    def __init__(self, known: Mapping[Question, Known]) -> None:
        self._known = known
        self.answered: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.faults: list[str] = []
        self.jobs: dict[str, tuple[Question, ...]] = {}
        """Accepted jobs by id."""
        self.doubtful = 0
        """Submissions that were never answered: their jobs may exist, and need not."""
        self.disturbed = False
        """Whether something has been killed and is not known to be back."""
        self.allowed = PASSING
        """Codes that requests may end with while something is down."""
        self._results: dict[str, list[str]] = {}

    def check(self, kind: str, question: Question, answer: SolveAnswer) -> None:
        """Count an answer; a fault where it is not what is known."""
        self.answered[kind] += 1
        known = self._known[question]
        if answer.verified and answer.text != question.answer:
            self.faults.append(f"{kind}: {answer.text} is called verified and is not the answer")
        if answer.finish_reason == "deadline":
            return  # the best answer so far, marked
        if answer.breadth.lost:
            self.faults.append(f"{kind}: {answer.breadth.lost} trajectories were lost")
        if known_of(answer) != known:
            self.faults.append(f"{kind}: answer {known_of(answer)} instead of {known}")

    def check_item(self, kind: str, question: Question, item: BatchItem | None) -> bool:
        """As `check` for an item of a batch or a job; whether it holds an answer."""
        if item is not None and item.answer is not None:
            self.check(kind, question, item.answer)
            return True
        code = item.error.code if item is not None and item.error is not None else "no_end"
        self._fail(kind, code, f"an item ended with {code}")
        return False

    def fail(self, kind: str, error: ClientError) -> None:
        """Count a request that has no answer; a fault where it must have one now."""
        if isinstance(error, TimedOut):
            self.faults.append(f"{kind}: no end within the client's time: {error}")
        elif isinstance(error, ServiceError):
            self._fail(kind, error.code, str(error))
        elif isinstance(error, AnswerUnreadable):
            self.faults.append(f"{kind}: {error}")
        elif isinstance(error, StreamBroken):
            self._fail(kind, BROKEN, str(error))
        elif isinstance(error, ConnectionFailed):
            self._fail(kind, CUT_OFF, str(error))
        else:
            self.faults.append(f"{kind}: {type(error).__name__}: {error}")

    def _fail(self, kind: str, code: str, told: str) -> None:
        self.failures.append(Failure(monotonic(), kind, code))
        if code not in self.allowed:
            self.faults.append(f"{kind}: {told}")
        elif not self.disturbed:
            self.faults.append(f"{kind}: {code} while nothing was down: {told}")

    def accept(self, job: JobAnswer, questions: Sequence[Question]) -> None:
        """A job was accepted; a fault where the same id was accepted for something else."""
        before = self.jobs.setdefault(job.id, tuple(questions))
        if before != tuple(questions):
            self.faults.append(f"job {job.id} was accepted for two different lists of puzzles")

    def end(self, job: JobAnswer) -> None:
        """An accepted job as it was read after its end; a fault where it differs from before."""
        results = job.results or []
        told = [job.state, *(str(None if one is None else one.model_dump()) for one in results)]
        if job.id in self._results:
            if self._results[job.id] != told:
                self.faults.append(f"job {job.id} has other results than before")
            return
        self._results[job.id] = told
        questions = self.jobs[job.id]
        if job.state != "done" or len(results) != len(questions):
            self.faults.append(f"job {job.id} ended {job.state} with {len(results)} results")
            return
        for question, item in zip(questions, results, strict=True):
            if item is None or item.answer is None:
                self.faults.append(f"job {job.id} has an item without an answer: {item}")
            else:
                self.check("item of a job", question, item.answer)

    @property
    def unended(self) -> list[str]:
        """Accepted jobs that have not been read after their end."""
        return [name for name in self.jobs if name not in self._results]

    def count_jobs(self, stored: int) -> None:
        """A fault where there are jobs in the store that nobody was told of, or too few."""
        accepted = len(self.jobs)
        if not accepted <= stored <= accepted + self.doubtful:
            self.faults.append(
                f"the store holds {stored} jobs; {accepted} were accepted, {self.doubtful} "
                "submissions are in doubt"
            )
