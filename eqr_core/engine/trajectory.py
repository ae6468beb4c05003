"""What the scheduler knows of a trajectory and of a request. No tensors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from eqr_core.engine.budget import Budget
from eqr_core.engine.halting import WINDOW, score

Outcome = Literal["running", "converged", "exhausted", "cut", "diverged", "stopped", "lost"]
"""`cut`: another trajectory of its wave was first. `stopped`: deadline or cancellation.
`lost`: it ran elsewhere, and what it came to is not known."""

FinishReason = Literal["converged", "verified", "exhausted", "deadline", "cancelled", "diverged"]

Prediction = bytes
"""Answer tokens, one byte a cell."""


@dataclass(eq=False)
class Trajectory:
    """One latent path of a request. It holds a slot, waits for its first, or is parked."""

    index: int
    wave: int
    depth: int
    slot: int | None = None
    steps: int = 0
    outcome: Outcome = "running"
    verified: bool = False
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    history: list[float] = field(default_factory=list)
    prediction: Prediction | None = None
    """Of the last finite step; None before it."""
    q: float = math.nan
    """Halting output after the step that is being recorded, where the budget halts by it."""
    streak: int = 0
    """Outer steps in a row after which the budget's halting rule held."""

    @property
    def running(self) -> bool:
        """Whether more outer steps are due."""
        return self.outcome == "running"

    @property
    def score(self) -> float:
        """Mean of the last three residuals; inf before the first and once diverged."""
        return math.inf if self.outcome == "diverged" else score(self.recent)


@dataclass(frozen=True)
class Shard:
    """A part of one wave of a request, whose other parts run elsewhere.

    It runs all its trajectories at once, up to its own t*. The first t* of a wave's shards is the
    wave's, so shards know nothing of each other.
    """

    first: int
    """Index of its first trajectory in the request."""
    wave: int
    depth: int | None = None
    """Outer steps at most, where the wave has fewer than the budget's depth."""


@dataclass(eq=False)
class Request:
    """One request inside the scheduler, from `add` to its finish reason."""

    id: str
    budget: Budget
    tolerance: float | None = None
    verify: Callable[[Prediction], bool] = lambda prediction: False
    priority: int = 0
    """A lower number goes first."""
    deadline: float = math.inf
    """Moment on the caller's monotonic clock, in seconds."""
    keep_history: bool = False
    shard: Shard | None = None
    arrival: int = 0
    share_before: float = 0.0
    """The scheduler's count of a request's share when this one came."""
    trajectories: list[Trajectory] = field(default_factory=list)
    wave: list[Trajectory] = field(default_factory=list)
    """The trajectories that started together last; `trajectories` ends with them."""
    cut_at: int | None = None
    """First outer step at which a trajectory of this wave won (t*); none needs to go beyond."""
    nfe: int = 0
    """Outer steps spent so far, over all trajectories."""
    finish_reason: FinishReason | None = None

    @property
    def held(self) -> int:
        """Slots held now."""
        return sum(trajectory.slot is not None for trajectory in self.wave)

    @property
    def pending(self) -> list[Trajectory]:
        """Trajectories that wait for a slot, in the order in which they get one."""
        return [t for t in self.wave if t.running and t.slot is None]
