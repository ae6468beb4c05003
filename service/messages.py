"""Between the messages of eqr.v1 and the models of schemas.py; nothing else converts.

proto3 has no absent string and no missing enum value: an empty string and the value 0 stand for the
service's default, as the comments in solver.proto say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.schemas import (
    BatchItem,
    FieldProblem,
    JobAnswer,
    ModelAnswer,
    ProblemDocument,
    ProgressAnswer,
    SolveAnswer,
    TrajectoryAnswer,
)
from service.stubs import solver_pb2 as pb

STOPS: Mapping[int, str] = {
    pb.STOP_CONVERGED: "converged",
    pb.STOP_VERIFIED: "verified",
    pb.STOP_EXHAUSTED: "exhausted",
}
HALTS: Mapping[int, str] = {
    pb.HALT_RESIDUAL: "residual",
    pb.HALT_Q: "q",
    pb.HALT_UNCHANGED: "unchanged",
}
SELECTIONS: Mapping[int, str] = {
    pb.SELECTION_RESIDUAL: "residual",
    pb.SELECTION_MAJORITY: "majority",
}
INCLUDES: Mapping[int, str] = {
    pb.INCLUDE_TRAJECTORIES: "trajectories",
    pb.INCLUDE_HISTORY: "history",
}
JOB_STATES: Mapping[str, pb.JobState] = {
    "queued": pb.JOB_STATE_QUEUED,
    "running": pb.JOB_STATE_RUNNING,
    "done": pb.JOB_STATE_DONE,
    "failed": pb.JOB_STATE_FAILED,
    "cancelled": pb.JOB_STATE_CANCELLED,
    "expired": pb.JOB_STATE_EXPIRED,
}
NOT_GIVEN = 0
LIMITS = ("depth", "breadth", "nfe", "deadline_ms", "tolerance", "patience")


def fields_of(request: pb.SolveRequest) -> dict[str, Any]:
    """What `request` asks for, as a body of ``POST /solve`` would; not checked."""
    given: dict[str, Any] = {
        "grid": request.grid,
        "budget": _budget(request.budget),
        "seed": request.seed,
        "noise": request.noise,
        "priority": request.priority,
        "include": [_named(INCLUDES, value) for value in request.include if value != NOT_GIVEN],
    }
    if request.skip_cache:
        given["cache"] = False
    if request.task:
        given["task"] = request.task
    if request.model:
        given["model"] = request.model
    if request.selection != NOT_GIVEN:
        given["selection"] = _named(SELECTIONS, request.selection)
    return given


def _budget(budget: pb.Budget) -> dict[str, Any]:
    given = {name: getattr(budget, name) for name in LIMITS if budget.HasField(name)}
    if budget.stop != NOT_GIVEN:
        given["stop"] = _named(STOPS, budget.stop)
    if budget.halt != NOT_GIVEN:
        given["halt"] = _named(HALTS, budget.halt)
    return given


def _named(names: Mapping[int, str], value: int) -> str:
    """An unknown number (proto3's enums are open) becomes a text that the model refuses."""
    return names.get(value, str(value))


def answer_message(answer: SolveAnswer) -> pb.SolveResponse:
    """`answer` as a message."""
    return pb.SolveResponse(
        id=answer.id,
        task=answer.task,
        model=answer.model,
        text=answer.text,
        residual=answer.residual,
        converged=answer.converged,
        verified=answer.verified,
        finish_reason=answer.finish_reason,
        iterations=answer.iterations,
        nfe=answer.nfe,
        layers=answer.layers,
        breadth=pb.BreadthCount(**answer.breadth.model_dump()),
        agreement=answer.agreement,
        confidence=answer.confidence,
        seed=answer.seed,
        cached=answer.cached,
        timing_ms=pb.Timing(**answer.timing_ms.model_dump()),
        trajectories=[_trajectory(one) for one in answer.trajectories or ()],
    )


def _trajectory(one: TrajectoryAnswer) -> pb.Trajectory:
    history = [math.nan if value is None else value for value in one.history or ()]
    return pb.Trajectory(**one.model_dump(exclude={"history"}), history=history)


def progress_message(progress: ProgressAnswer) -> pb.Progress:
    """`progress` as a message."""
    return pb.Progress(iteration=progress.iteration, residual=progress.residual, text=progress.text)


def event_message(event: ProgressAnswer | SolveAnswer) -> pb.SolveStreamResponse:
    """An event of a followed solve as a message."""
    if isinstance(event, SolveAnswer):
        return pb.SolveStreamResponse(result=answer_message(event))
    return pb.SolveStreamResponse(progress=progress_message(event))


def model_message(model: ModelAnswer) -> pb.Model:
    """`model` as a message; the measured results and calibration stay with REST and the card."""
    return pb.Model(**model.model_dump(exclude={"results", "calibration"}))


def item_message(item: BatchItem | None) -> pb.ItemResult:
    """The end of an item; None never ended."""
    if item is None:
        return pb.ItemResult()
    if item.answer is not None:
        return pb.ItemResult(answer=answer_message(item.answer))
    return pb.ItemResult(error=_error(item.error) if item.error is not None else None)


def _error(problem: ProblemDocument) -> pb.ItemError:
    faults = [fault_message(one) for one in problem.errors or ()]
    return pb.ItemError(code=problem.code, detail=problem.detail, faults=faults)


def job_message(job: JobAnswer) -> pb.Job:
    """`job` as a message."""
    return pb.Job(
        id=job.id,
        state=JOB_STATES[job.state],
        done=job.progress.done,
        total=job.progress.total,
        created_ms=_ms(job.created_at),
        ended_ms=None if job.ended_at is None else _ms(job.ended_at),
        expires_ms=None if job.expires_at is None else _ms(job.expires_at),
        error=job.error or "",
        results=[item_message(item) for item in job.results or ()],
    )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1e3)


def fault_message(problem: FieldProblem) -> pb.Fault:
    """One fault of a request as a message."""
    return pb.Fault(
        field=field_of(problem.pointer), place=problem.place or "", message=problem.message
    )


def field_of(pointer: str) -> str:
    """``#/budget/depth`` as the field path ``budget.depth``."""
    parts = pointer.removeprefix("#").split("/")[1:]
    return ".".join(part.replace("~1", "/").replace("~0", "~") for part in parts)
