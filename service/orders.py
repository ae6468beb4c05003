"""What the ingress hands to a solver and gets back: plain values that import no torch."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from eqr_core.engine.answer import Answer, Progress, SolveRequest, TrajectoryResult
from eqr_core.engine.budget import Budget
from eqr_core.engine.document import answer_document
from eqr_core.errors import DeadlineExceeded
from eqr_core.tasks import TASK_NAMES, parse_grid
from service.problems import Refusal
from service.schemas import (
    FieldProblem,
    ProgressAnswer,
    SolveAnswer,
    SolveBody,
    TrajectoryAnswer,
    new_id,
)

ANY_MODEL = ""

MAX_HISTORY = 100_000
"""Residuals that one answer may list: about 2 MB of JSON."""


@dataclass(frozen=True)
class Order:
    """One solve, checked, and what its answer shall hold.

    `request.model` is ANY_MODEL where the solver chooses by the grid's shape.
    """

    request: SolveRequest
    end: float
    """Wall clock at which the deadline passes, in seconds since 1970: other clocks mean nothing
    in another process, and the deadline runs on while the order travels or waits for a replica."""
    trajectories: bool
    cache: bool = True
    """Whether an answer from the cache will do."""
    owner: str = ""
    """Name of the API key that pays; empty where none is asked for."""

    @property
    def left_seconds(self) -> float:
        """Time until the deadline; negative after it."""
        return self.end - time.time()

    def request_now(self, model: str) -> SolveRequest:
        """The request for `model`, with the time that is left; DeadlineExceeded when none is."""
        left_ms = self.left_seconds * 1e3
        if left_ms <= 0:
            raise DeadlineExceeded("the deadline passed before a solver could begin")
        budget = self.request.budget
        # Clocks of two machines may differ; no order gets more than it had.
        limit = left_ms if budget.deadline_ms is None else min(left_ms, budget.deadline_ms)
        return replace(self.request, model=model, budget=replace(budget, deadline_ms=limit))


def order_of(body: SolveBody, default_deadline_ms: float) -> Order:
    """Check `body` against its task and the budget's limits.

    Raises GridError with every fault and its place, BudgetError for a field outside its limits,
    and a Refusal for an unknown task or for more history than an answer may hold.
    """
    if body.task is not None and body.task not in TASK_NAMES:
        message = f"there is no task {body.task!r}; there is {', '.join(TASK_NAMES)}"
        raise Refusal("invalid_request", message, [FieldProblem(pointer="#/task", message=message)])
    limits = body.budget.model_dump()
    if limits["deadline_ms"] is None:
        limits["deadline_ms"] = default_deadline_ms
    budget = Budget(**limits)
    task, grid = parse_grid(body.grid, body.task)
    _check_history(body, budget)
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
    end = time.time() + limits["deadline_ms"] / 1e3
    return Order(request, end, trajectories=bool(body.include), cache=body.cache)


def _check_history(body: SolveBody, budget: Budget) -> None:
    most = min(budget.depth * budget.breadth, budget.nfe or math.inf)
    if "history" in body.include and most > MAX_HISTORY:
        message = (
            f"history of up to {most} iterations (depth · breadth, or nfe) was asked for; "
            f"the limit is {MAX_HISTORY}"
        )
        field = FieldProblem(pointer="#/include", message=message)
        raise Refusal("invalid_request", message, [field])


def answer_of(order: Order, answer: Answer) -> SolveAnswer:
    """The engine's answer as the contract has it; `timing_ms.total` is the engine's part."""
    return SolveAnswer(
        **answer_document(answer),
        trajectories=[_trajectory(order.request, one) for one in answer.trajectories]
        if order.trajectories
        else None,
    )


def progress_of(order: Order, progress: Progress) -> ProgressAnswer:
    """Where a solve stands, as a stream tells it."""
    return ProgressAnswer(
        iteration=progress.iteration,
        residual=_finite(progress.residual),
        grid=[list(row) for row in progress.grid],
        text=order.request.task.text(progress.grid),
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
