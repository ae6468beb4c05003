"""Adaptive breadth: which trajectories a request runs, and when it is done.

Everything is decided in trajectory time, the number of outer steps a trajectory has made, never
in ticks. A wave ends at the first outer step t* at which one of its trajectories wins; the
others run up to t* and no further, and those that win at t* itself compete. So slots, neighbours
and the order of admission have no part in the answer (DESIGN section 3). What they can change
is `nfe`: a trajectory that got its slot earlier may already be past t* when another sets it.
"""

from __future__ import annotations

from eqr_core.engine.halting import has_converged, has_diverged
from eqr_core.engine.trajectory import FinishReason, Prediction, Request, Trajectory


def begin_wave(request: Request) -> bool:
    """Add the next wave's trajectories; False when breadth or NFE are spent.

    Waves double: 1, 1, 2, 4, … up to the breadth. Under an NFE cap a wave of k trajectories gets
    depth min(depth, left // k), and k shrinks until that is at least 1. A shard is a single wave.
    """
    budget, shard = request.budget, request.shard
    started = len(request.trajectories)
    width = budget.breadth - started
    if budget.stop != "exhausted" and not shard:
        width = min(width, max(1, started))
    elif started:
        return False
    depth = budget.depth
    if budget.nfe is not None:
        left = budget.nfe - request.nfe
        width = min(width, left)
        depth = min(depth, left // width) if width > 0 else 0
    if width < 1:
        return False
    number = request.wave[0].wave + 1 if request.wave else 0
    first = started
    if shard:
        first, number, depth = shard.first, shard.wave, min(depth, shard.depth or depth)
    request.wave = [Trajectory(first + i, number, depth) for i in range(width)]
    request.trajectories.extend(request.wave)
    request.cut_at = None
    return True


def record_step(
    request: Request, trajectory: Trajectory, residual: float, prediction: Prediction
) -> None:
    """Note one outer step of `trajectory`, and whether it was its last.

    A budget that halts by `q` finds it in `trajectory.q`.
    """
    trajectory.steps += 1
    request.nfe += 1
    if request.keep_history:
        trajectory.history.append(residual)
    if has_diverged(residual):
        trajectory.outcome = "diverged"
        return
    trajectory.recent.append(residual)
    held = _rule_holds(request, trajectory, prediction)
    trajectory.streak = trajectory.streak + 1 if held else 0
    trajectory.prediction = prediction
    reached = trajectory.streak >= request.budget.steps_in_a_row
    at_end = trajectory.steps >= trajectory.depth
    early = reached and request.budget.stop != "exhausted"
    if at_end or early:
        trajectory.outcome = "converged" if reached else "exhausted"
        crown(request, trajectory)


def _rule_holds(request: Request, trajectory: Trajectory, prediction: Prediction) -> bool:
    match request.budget.halt:
        case "residual":
            return has_converged(trajectory.recent, request.tolerance)
        case "q":
            return trajectory.q > 0
        case "unchanged":
            return prediction == trajectory.prediction


def crown(request: Request, trajectory: Trajectory) -> None:
    """Note whether a trajectory that has converged or run to its end wins, and so sets t*."""
    if request.budget.stop == "verified":
        trajectory.verified = request.verify(trajectory.prediction or b"")
        won = trajectory.verified
    else:
        won = trajectory.outcome == "converged" and request.budget.stop == "converged"
    if won and (request.cut_at is None or trajectory.steps < request.cut_at):
        request.cut_at = trajectory.steps


def settle(request: Request) -> None:
    """End what ran past t*; at the wave's end begin the next one or set the finish reason."""
    if request.cut_at is not None:
        for trajectory in request.wave:
            beyond = trajectory.steps > request.cut_at
            if beyond or (trajectory.running and trajectory.steps == request.cut_at):
                trajectory.outcome = "cut"
    if any(trajectory.running for trajectory in request.wave):
        return
    if request.cut_at is not None:
        request.finish_reason = "verified" if request.budget.stop == "verified" else "converged"
    elif not begin_wave(request):
        diverged = all(t.outcome == "diverged" for t in request.trajectories)
        request.finish_reason = "diverged" if diverged else "exhausted"


def stop(request: Request, reason: FinishReason) -> None:
    """End the request now, with whatever it has."""
    for trajectory in request.wave:
        if trajectory.running:
            trajectory.outcome = "stopped"
    request.finish_reason = reason
