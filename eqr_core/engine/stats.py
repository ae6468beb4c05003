"""What the engine has done, for whoever counts it: logs, Prometheus, benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stats:
    """The engine at one moment: gauges first, then totals since its start."""

    slots: int = 0
    """Over all (checkpoint, task size) pairs that were asked for so far."""
    slots_busy: int = 0
    requests_waiting: int = 0
    """Requests that hold no slot."""
    requests_active: int = 0
    ticks: int = 0
    outer_steps: int = 0
    tick_seconds: float = 0.0
    trajectories: Mapping[str, int] = field(default_factory=dict)
    """Trajectories of ended requests by outcome."""


@dataclass(frozen=True)
class Tick:
    """One tick of the engine."""

    seconds: float
    outer_steps: int
    slots_busy: int
    requests_waiting: int


Observer = Callable[[Tick], None]
"""Called after every tick that ran outer steps, in the stepping thread; it must be quick."""
