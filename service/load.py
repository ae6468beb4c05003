"""How much work a solver has in hand.

The number of solvers follows it (`service/scaling.py`), and a solver takes no request that would
have to wait for longer than it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, exp, inf
from time import monotonic

from eqr_core.engine.budget import Budget
from eqr_core.engine.stats import Stats
from service.problems import Refusal

LEARNING = 0.1
"""Weight of the newest answer in the share of their budgets that answers spend."""
PATIENCE = 0.5
"""Share of its time that a request may wait for others. A machine may be a third slower in the
next minute than in the last, and a queue that is longer than the slots adds no throughput."""
LONGEST_RETRY = 20
"""Seconds; deadlines and clients that leave may make room before the estimate says so."""
UNCHECKED = 0.25
"""So many requests a slot are taken without a look at their time. One a slot would be too many:
requests of many outer steps share the processor, and none of them would be done in time. The speed
is measured beyond that too: a few rows may leave most threads idle."""
SAME_SHARE, MOST_SAME_SECONDS = 0.01, 1.0
"""For this share of the time that a refused request had, and no longer, one like it is refused too:
the queue is a good part of that time, so it does not run empty."""
MEASURED_SECONDS = 5.0
"""Of ticks, about, from which the speed is taken. Under overload the fastest moment decides how
many requests are taken, so the moments must not be short."""


@dataclass(frozen=True, eq=False)
class _Held:
    ceiling: int
    end: float
    priority: int


class Load:
    """Counts NFE in hand. Used in one event loop; `since` is where its measurements begin."""

    def __init__(self, since: Stats, slots: int) -> None:
        self._slots = slots
        self._in_hand: set[_Held] = set()
        # Adaptive breadth spends far less than a budget allows; until answers tell, all of it.
        self._share = 1.0
        self._answers = 0
        self._cut = False
        self._before = (monotonic(), since)
        self._speed = 0.0
        self._measured = since
        self._weight = self._weighted = 0.0

    @contextmanager
    def taken(self, budget: Budget, end: float = inf, priority: int = 0) -> Iterator[None]:
        """A request with `budget` is in hand until the block ends; its deadline is at `end`."""
        held = _Held(ceiling_of(budget), end, priority)
        self._in_hand.add(held)
        try:
            yield
        finally:
            self._in_hand.discard(held)

    def learn(self, budget: Budget, nfe: int, cut: bool = False) -> None:
        """An answer to `budget` took `nfe` outer steps; `cut` by its deadline, at least those."""
        self._cut = self._cut or cut
        spent = min(1.0, nfe / ceiling_of(budget))
        if not nfe or (cut and spent < self._share):
            return
        self._answers += 1
        self._share += max(LEARNING, 1 / self._answers) * (spent - self._share)

    def check_room(self, stats: Stats, end: float, left_seconds: float, priority: int) -> None:
        """Raise a Refusal ``queue_full`` where a request could not be answered in its time.

        That is so when what goes before it (lower `priority`, or as low and a deadline no later
        than `end`) takes more than `PATIENCE` of its `left_seconds`. The first few are taken
        unseen. Before the first answer nothing is known; where deadlines cut the first ones,
        requests are thought to take all of their budgets.
        """
        speed = self._measure(stats)
        if not self._is_much or not (self._answers or self._cut):
            return
        before = sum(
            held.ceiling for held in self._in_hand if (held.priority, held.end) <= (priority, end)
        )
        wait = self._share * before / speed if speed else 0.0
        most = PATIENCE * left_seconds
        if wait > most:
            raise Refusal(
                "queue_full",
                f"requests that go first take {wait:.1f} s more; this one has {left_seconds:.1f} s "
                f"and may wait for {most:.1f} s of them",
                headers={"Retry-After": str(min(LONGEST_RETRY, ceil(wait - most)))},
                holds_seconds=min(MOST_SAME_SECONDS, SAME_SHARE * left_seconds),
            )

    def report(self, stats: Stats) -> dict[str, float]:
        """`nfe`: outer steps that the requests in hand will take, as answers so far suggest;
        `busy`: share of the time since the last report that was spent in ticks;
        `nfe_per_second`: outer steps a second in the latest ticks, 0 before the first.
        """
        now = monotonic()
        (then, before), self._before = self._before, (now, stats)
        seconds = stats.tick_seconds - before.tick_seconds
        if seconds:
            self._speed = (stats.outer_steps - before.outer_steps) / seconds
        return {
            "nfe": self._share * sum(held.ceiling for held in self._in_hand),
            "busy": min(1.0, seconds / max(now - then, 1e-9)),
            "nfe_per_second": self._speed,
        }

    def _measure(self, stats: Stats) -> float:
        """Outer steps a second while there was much to do, 0 before; what is older fades."""
        seconds = stats.tick_seconds - self._measured.tick_seconds
        steps = stats.outer_steps - self._measured.outer_steps
        self._measured = stats
        if seconds and self._is_much:
            # An interval fades within itself too: an hour weighs little more than five seconds.
            fade = exp(-seconds / MEASURED_SECONDS)
            self._weight = fade * self._weight + 1 - fade
            self._weighted = fade * self._weighted + (1 - fade) * steps / seconds
        return self._weighted / self._weight if self._weight else 0.0

    @property
    def _is_much(self) -> bool:
        """Whether there are so many requests in hand that the time of others is looked at."""
        return len(self._in_hand) >= self._slots * UNCHECKED


def ceiling_of(budget: Budget) -> int:
    """Most outer steps that `budget` allows."""
    most = budget.depth * budget.breadth
    return most if budget.nfe is None else min(most, budget.nfe)
