"""A circuit breaker: no solver is asked while the solvers are known to be full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from service.problems import Refusal

LEAST_OPEN_SECONDS = 0.05
"""Open for so long where the refusal does not hold for longer."""
ENOUGH = 3
"""So many calls refused in a row, without an answer between: not just one of several solvers is
full."""
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
    """Opens after several ``queue_full`` in a row, for requests like the last refused.

    While it is open such a request costs a fraction of a millisecond rather than a journey to a
    solver. Others go there.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._until = 0.0
        self._refused: tuple[Urgency, Refusal] | None = None

    def check(self, urgency: Urgency) -> None:
        """Raise a Refusal ``queue_full`` where a solver would."""
        left = self._until - monotonic()
        if self._refused is None or left <= 0:
            return
        refused, refusal = self._refused
        if urgency.is_refused_with(refused):
            # Not that very refusal: it keeps the frames of every place it was raised at.
            detail = (
                f"a request with {refused.seconds:.1f} s of priority {refused.priority} found the "
                f"solvers full; those like it are not asked again for {left:.2f} s"
            )
            raise Refusal("queue_full", detail, headers=refusal.headers)

    def ended(self, ends: Sequence[tuple[Urgency, object]]) -> None:
        """A call to a solver has ended so for each of its requests."""
        full: list[tuple[Urgency, Refusal]] = []
        for urgency, end in ends:
            if not isinstance(end, Refusal):
                self._in_a_row = 0
                return
            if end.code == "queue_full":
                full.append((urgency, end))
        self._in_a_row += bool(full)
        if full and self._in_a_row >= ENOUGH:
            self._refused = full[-1]
            holds = self._refused[1].holds_seconds
            self._until = monotonic() + max(LEAST_OPEN_SECONDS, holds)
