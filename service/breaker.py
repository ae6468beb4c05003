"""A circuit breaker: no solver is asked while the solvers are known to be full."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from service.problems import Refusal

OPEN_SHARE, MOST_OPEN_SECONDS = 0.01, 1.0
"""Open for this share of the time that the refused request had, and no longer: a full queue is a
good part of that time (`service/load.py`), so it does not run empty, and what is refused may come
again after a second at the soonest."""
ENOUGH = 3
"""So many refusals in a row, without an answer between: not just one of several solvers is full."""
ALIKE = 1.05
"""Times that differ by no more than this factor count as the same."""


@dataclass(frozen=True)
class Urgency:
    """What decides whether a full solver takes a request: its priority, and the time it has."""

    priority: int
    seconds: float

    def is_refused_with(self, refused: Urgency) -> bool:
        """Whether a solver that refused `refused` would refuse this one too.

        One with less time goes first and may find room; one with more may be able to wait.
        """
        alike = refused.seconds / ALIKE <= self.seconds <= refused.seconds * ALIKE
        return alike and self.priority >= refused.priority


class Breaker:
    """Opens for a moment after several ``queue_full`` in a row, for requests like the last refused.

    While it is open such a request costs a fraction of a millisecond rather than a journey to a
    solver. Others go there.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._until = 0.0
        self._refused: tuple[Urgency, Refusal] | None = None

    def check(self, urgency: Urgency) -> None:
        """Raise a Refusal ``queue_full`` where a solver would."""
        if self._refused is None or monotonic() >= self._until:
            return
        refused, refusal = self._refused
        if urgency.is_refused_with(refused):
            # Not that very refusal: it keeps the frames of every place it was raised at.
            raise Refusal("queue_full", "the solvers are full", headers=refusal.headers)

    def refused(self, urgency: Urgency, refusal: Refusal) -> None:
        """A solver refused a request."""
        if refusal.code != "queue_full":
            return
        self._in_a_row += 1
        if self._in_a_row >= ENOUGH:
            self._refused = urgency, refusal
            open_seconds = min(MOST_OPEN_SECONDS, OPEN_SHARE * urgency.seconds)
            self._until = monotonic() + open_seconds

    def answered(self) -> None:
        """A solver took a request."""
        self._in_a_row = 0
