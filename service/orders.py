"""What the ingress hands to a solver and gets back: plain values that import no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from eqr_core.engine.answer import Answer, SolveRequest, TrajectoryResult
from eqr_core.engine.budget import Budget
from eqr_core.tasks import TASK_NAMES, parse_grid
from service.problems import Refusal
from service.schemas import (
    BreadthCount,
    FieldProblem,
    SolveAnswer,
    SolveBody,
    Timing,
    TrajectoryAnswer,
    new_id,
)

ANY_MODEL = ""


@dataclass(frozen=True)
class Order:
    """One solve, checked, and what its answer shall hold.

    `request.model` is ANY_MODEL where the solver chooses by the grid's shape; its budget has a
    deadline.
    """

    request: SolveRequest
    deadline_ms: float
    trajectories: bool

    def within(self, milliseconds: float) -> Order:
        """The same with another deadline."""
        budget = replace(self.request.budget, deadline_ms=milliseconds)
        return replace(self, request=replace(self.request, budget=budget))


def order_of(body: SolveBody, default_deadline_ms: float) -> Order:
    """Check `body` against its task and the budget's limits.

    Raises GridError with every fault and its place, BudgetError for a field outside its limits,
    and a Refusal for an unknown task.
    """
    if body.task is not None and body.task not in TASK_NAMES:
        message = f"there is no task {body.task!r}; there is {', '.join(TASK_NAMES)}"
        raise Refusal("invalid_request", message, [FieldProblem(pointer="#/task", message=message)])
    limits = body.budget.model_dump()
    if limits["deadline_ms"] is None:
        limits["deadline_ms"] = default_deadline_ms
    budget = Budget(**limits)
    task, grid = parse_grid(body.grid, body.task)
    request = SolveRequest(
        task=task,
        grid=grid,
        model=body.model if body.model is not None else ANY_MODEL,
        budget=budget,
        seed=body.seed,
        noise=body.noise,
        selection=body.selection,
        priority=body.priority,
        history="history" in body.include,
        id=new_id(),
    )
    return Order(request, limits["deadline_ms"], trajectories=bool(body.include))


def answer_of(order: Order, answer: Answer) -> SolveAnswer:
    """The engine's answer as the contract has it; `timing_ms.total` is the engine's part."""
    queue, solve = answer.queue_seconds * 1e3, answer.solve_seconds * 1e3
    return SolveAnswer(
        id=answer.id,
        task=answer.task,
        model=answer.model,
        grid=[list(row) for row in answer.grid],
        text=answer.text,
        residual=_finite(answer.residual),
        converged=answer.converged,
        verified=answer.verified,
        finish_reason=answer.finish_reason,
        iterations=answer.iterations,
        nfe=answer.nfe,
        layers=answer.layers,
        breadth=BreadthCount(
            started=answer.started, converged=answer.finished_converged, lost=answer.lost
        ),
        agreement=answer.agreement,
        seed=answer.seed,
        cached=False,
        timing_ms=Timing(queue=queue, solve=solve, total=queue + solve),
        trajectories=[_trajectory(order.request, one) for one in answer.trajectories]
        if order.trajectories
        else None,
    )


def _trajectory(request: SolveRequest, result: TrajectoryResult) -> TrajectoryAnswer:
    return TrajectoryAnswer(
        index=result.index,
        wave=result.wave,
        iterations=result.iterations,
        residual=_finite(result.residual),
        converged=result.converged,
        verified=result.verified,
        outcome=result.outcome,
        text=request.task.text(result.grid),
        history=[_finite(value) for value in result.history] if request.history else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
