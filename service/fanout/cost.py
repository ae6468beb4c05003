"""When fan-out pays: what a wave costs here, and what it costs shared with others.

All numbers are measured where the shards run (`nodes.py` says how); nothing here measures.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """Outer steps of one model at one size: a tick takes `tick` + rows · `row` seconds.

    On a CPU `row` is nearly all of it, on a GPU `tick` is.
    """

    tick: float
    row: float

    @staticmethod
    def between(few: tuple[int, float], many: tuple[int, float]) -> Speed:
        """The line through two measurements, (rows, seconds of a tick) each; never negative."""
        row = max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
        return Speed(tick=max(0.0, few[1] - few[0] * row), row=row)

    def seconds(self, rows: int, depth: int, slots: int) -> float:
        """Time that `rows` trajectories of `depth` outer steps take, `slots` at a time."""
        full, rest = divmod(rows, slots)
        ticks = full * (self.tick + slots * self.row)
        return depth * (ticks + (self.tick + rest * self.row if rest else 0.0))


@dataclass(frozen=True)
class Cost:
    """What fan-out is decided by, for one model at one size."""

    speed: Speed
    overhead: float
    """Seconds that a shard takes beyond its outer steps, on a worker that has the weights."""


def shares(width: int, depth: int, cost: Cost, *, workers: int, slots: int) -> list[int]:
    """How many trajectories of a wave run here, and then how many in each shard elsewhere.

    As many of the `workers` take part as make the wave end first; none where sharing does not pay.
    The work counts as if nothing wins: only wide waves are worth sharing, and they begin when all
    before them have failed.

    >>> shares(64, 64, Cost(Speed(tick=0.0, row=0.002), overhead=0.02), workers=3, slots=64)
    [16, 16, 16, 16]
    """

    def seconds(helpers: int) -> float:
        own = -(-width // (helpers + 1))
        return cost.speed.seconds(own, depth, slots) + (cost.overhead if helpers else 0.0)

    helpers = min(range(min(workers, width - 1) + 1), key=seconds)
    own = -(-width // (helpers + 1))
    parts, left, most = [own], width - own, min(own, slots)
    while left:
        parts.append(min(most, left))
        left -= parts[-1]
    return parts


def widest_wave(breadth: int, at_once: bool) -> int:
    """Trajectories of the widest wave of a request, without an NFE cap."""
    if at_once:
        return breadth
    widest, started = 1, 1
    while started < breadth:
        widest = max(widest, min(started, breadth - started))
        started *= 2
    return widest
