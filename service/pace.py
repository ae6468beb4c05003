"""How often a stream tells of progress."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

SLOWING = 200
"""After this many intervals' worth of time, the time between two events grows with the stream's
age: a stream of any length has few events, and so has whatever queues up for a slow reader."""


class Pace:
    """Says when the next event is due: `per_second` at first, ever fewer as the stream ages."""

    def __init__(self, per_second: float, clock: Callable[[], float] = monotonic) -> None:
        self._interval = 1.0 / per_second
        self._clock = clock
        self._began = clock()
        self._told: float | None = None

    def due(self) -> bool:
        """Whether an event may go out now; if so, it counts as sent."""
        now = self._clock()
        interval = max(self._interval, (now - self._began) / SLOWING)
        if self._told is not None and now - self._told < interval:
            return False
        self._told = now
        return True
