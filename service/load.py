"""How much work a solver has in hand: what the number of solvers follows (`service/scaling.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from eqr_core.engine.budget import Budget
from eqr_core.engine.stats import Stats

LEARNING = 0.1
"""Weight of the newest answer in the share of their budgets that answers spend."""


class Load:
    """Counts NFE in hand. Used in one event loop; `since` is where its measurements begin."""

    def __init__(self, since: Stats) -> None:
        self._ceilings = 0
        # Adaptive breadth spends far less than a budget allows; until answers tell, all of it.
        self._share = 1.0
        self._before = (monotonic(), since)
        self._speed = 0.0

    @contextmanager
    def taken(self, budget: Budget) -> Iterator[None]:
        """A request with `budget` is in hand until the block ends."""
        ceiling = ceiling_of(budget)
        self._ceilings += ceiling
        try:
            yield
        finally:
            self._ceilings -= ceiling

    def learn(self, budget: Budget, nfe: int) -> None:
        """An answer to `budget` took `nfe` outer steps."""
        self._share += LEARNING * (min(1.0, nfe / ceiling_of(budget)) - self._share)

    def report(self, stats: Stats) -> dict[str, float]:
        """`nfe`: outer steps that the requests in hand will take, as answers so far suggest;
        `busy`: share of the time since the last report that was spent in ticks;
        `nfe_per_second`: outer steps a second in the latest ticks, 0 before the first.
        """
        now = monotonic()
        (then, before), self._before = self._before, (now, stats)
        seconds = stats.tick_seconds - before.tick_seconds
        if seconds > 0:
            self._speed = (stats.outer_steps - before.outer_steps) / seconds
        return {
            "nfe": self._share * self._ceilings,
            "busy": min(1.0, seconds / max(now - then, 1e-9)),
            "nfe_per_second": self._speed,
        }


def ceiling_of(budget: Budget) -> int:
    """Most outer steps that `budget` allows."""
    most = budget.depth * budget.breadth
    return most if budget.nfe is None else min(most, budget.nfe)
