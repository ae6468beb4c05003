"""Refusals at the ingress while the solvers are known to be full: no order goes there in vain."""

from __future__ import annotations

from time import monotonic

from service.orders import Order
from service.problems import Refusal

SHUT_SECONDS = 0.05
"""A full queue does not run empty in this time, and what is refused once may come again after a
second at the soonest."""
ENOUGH = 3
"""So many refusals in a row, without an answer between: not just one of several solvers is full."""
ALIKE = 1.05
"""Time left that is no more than so many times the refused order's is as little."""


class Shutter:
    """Shut for a moment after several ``queue_full`` in a row, to orders like the last refused.

    While it is shut such an order costs a fraction of a millisecond rather than a journey to a
    solver, whose event loop is left to what it has taken. One that is more urgent, or has more
    time, may still find room and goes there.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._until = 0.0
        self._last: Refusal | None = None
        self._priority, self._left_seconds = 0, 0.0

    def check(self, order: Order) -> None:
        """Raise the last refusal again where it would meet `order` too."""
        if self._last is None or monotonic() >= self._until:
            return
        urgent = order.request.priority < self._priority
        patient = order.left_seconds > ALIKE * self._left_seconds
        if not (urgent or patient):
            # A copy: an exception keeps the frames of every place it was raised at.
            raise Refusal(*self._last.args)

    def refused(self, order: Order, refusal: Refusal) -> None:
        """A solver refused `order`."""
        if refusal.code != "queue_full":
            return
        self._in_a_row += 1
        if self._in_a_row >= ENOUGH:
            self._last, self._until = refusal, monotonic() + SHUT_SECONDS
            self._priority, self._left_seconds = order.request.priority, order.left_seconds

    def answered(self) -> None:
        """A solver answered an order."""
        self._in_a_row = 0
