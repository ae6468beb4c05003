"""Which trajectory is the answer (paper section 4: the lowest mean residual; no verifier)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from eqr_core.engine.trajectory import Request, Trajectory

Selection = Literal["residual", "majority"]


def choose(request: Request, selection: Selection) -> Trajectory | None:
    """The answer's trajectory; None when no trajectory has made a finite step.

    A wave that was won is decided among those that won at t*. Otherwise all that have a
    prediction compete, ahead of the rest those that converged (or, with `stop: "verified"`,
    those that verified), which matters only at a deadline.

    `majority` therefore votes over the whole breadth where all trajectories run to the end: with
    `stop: "exhausted"`, or when no wave was won. A won wave ends at t*, where it seldom has more
    than one candidate; what the others would have voted for is not known there, and what they
    had by then depends on who got its slot first.
    """
    candidates = [t for t in request.trajectories if t.prediction and t.outcome != "diverged"]
    if request.finish_reason in ("converged", "verified"):
        candidates = [t for t in request.wave if _won(request, t)]
    elif request.finish_reason in ("deadline", "cancelled"):
        candidates = [t for t in candidates if _won(request, t)] or candidates
    if not candidates:
        return None
    if selection == "majority":
        votes = Counter(t.prediction for t in candidates)
        most = max(votes.values())
        candidates = [t for t in candidates if votes[t.prediction] == most]
    return min(candidates, key=lambda t: (t.score, t.index))


def agreement(chosen: Trajectory, trajectories: Sequence[Trajectory]) -> float:
    """Share of the finished trajectories (and the chosen one) with the chosen prediction."""
    votes = finished(chosen, trajectories)
    return sum(t.prediction == chosen.prediction for t in votes) / len(votes)


def finished(chosen: Trajectory, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories that ran until they converged or to their end, and the chosen one."""
    return [t for t in trajectories if t is chosen or t.outcome in ("converged", "exhausted")]


def _won(request: Request, trajectory: Trajectory) -> bool:
    if request.budget.stop == "verified":
        return trajectory.verified and trajectory.outcome != "cut"
    return trajectory.outcome == "converged"
