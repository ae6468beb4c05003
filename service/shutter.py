"""Refusals before a solver is asked, while the solvers are known to be full."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from service.problems import Refusal

SHUT_SECONDS = 0.05
"""A full queue does not run empty in this time, and what is refused once may come again after a
second at the soonest."""
ENOUGH = 3
"""So many refusals in a row, without an answer between: not just one of several solvers is full."""
ALIKE = 1.05
"""Time that is no more than so many times the refused request's is as little."""


@dataclass(frozen=True)
class Ask:
    """What decides whether a full solver takes a request: its priority, and the time it has."""

    priority: int = 0
    seconds: float | None = None
    """None: the service's default."""

    def in_vain_after(self, refused: Ask) -> bool:
        """Whether a solver that refused `refused` would refuse this one too."""
        if self.priority < refused.priority:
            return False
        if self.seconds is None or refused.seconds is None:
            return self.seconds is refused.seconds
        return self.seconds <= ALIKE * refused.seconds


class Shutter:
    """Shut for a moment after several ``queue_full`` in a row, to requests like the last refused.

    While it is shut such a request costs a fraction of a millisecond rather than a journey to a
    solver. One that is more urgent, or has more time, may still find room and goes there.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._until = 0.0
        self._last: Refusal | None = None
        self._ask = Ask()

    def check(self, ask: Ask) -> None:
        """Raise the last refusal again where it would meet `ask` too."""
        if self._last is None or monotonic() >= self._until:
            return
        if ask.in_vain_after(self._ask):
            # A copy: an exception keeps the frames of every place it was raised at.
            raise Refusal(*self._last.args)

    def refused(self, ask: Ask, refusal: Refusal) -> None:
        """A solver refused `ask`."""
        if refusal.code != "queue_full":
            return
        self._in_a_row += 1
        if self._in_a_row >= ENOUGH:
            self._ask, self._last = ask, refusal
            self._until = monotonic() + SHUT_SECONDS

    def answered(self) -> None:
        """A solver answered."""
        self._in_a_row = 0
