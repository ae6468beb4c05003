"""Between the messages of eqr.v1 and the models of schemas.py; nothing else converts.

proto3 has no absent string and no missing enum value: an empty string and the value 0 stand for the
service's default, as the comments in solver.proto say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.schemas import (
    FieldProblem,
    ModelAnswer,
    ProgressAnswer,
    SolveAnswer,
    SolveBody,
    TrajectoryAnswer,
)
from service.stubs import solver_pb2 as pb

STOPS: Mapping[int, str] = {
    pb.STOP_CONVERGED: "converged",
    pb.STOP_VERIFIED: "verified",
    pb.STOP_EXHAUSTED: "exhausted",
}
SELECTIONS: Mapping[int, str] = {
    pb.SELECTION_RESIDUAL: "residual",
    pb.SELECTION_MAJORITY: "majority",
}
INCLUDES: Mapping[int, str] = {
    pb.INCLUDE_TRAJECTORIES: "trajectories",
    pb.INCLUDE_HISTORY: "history",
}
NOT_GIVEN = 0
LIMITS = ("depth", "breadth", "nfe", "deadline_ms", "tolerance")


def body_of(request: pb.SolveRequest) -> SolveBody:
    """What `request` asks for; RequestValidationError names each field outside its limits."""
    try:
        return SolveBody.model_validate(_fields(request))
    except ValidationError as error:
        # As FastAPI tells of a body: one reader of faults, the same codes and places.
        faults = error.errors(include_url=False)
        raise RequestValidationError(
            [{**fault, "loc": ("body", *fault["loc"])} for fault in faults]
        ) from None


def _fields(request: pb.SolveRequest) -> dict[str, Any]:
    given: dict[str, Any] = {
        "grid": request.grid,
        "budget": _budget(request.budget),
        "seed": request.seed,
        "noise": request.noise,
        "priority": request.priority,
        "include": [_named(INCLUDES, value) for value in request.include if value != NOT_GIVEN],
    }
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
    """`model` as a message; the measured results stay with REST and the card."""
    return pb.Model(**model.model_dump(exclude={"results"}))


def fault_message(problem: FieldProblem) -> pb.Fault:
    """One fault of a request as a message."""
    return pb.Fault(
        field=field_of(problem.pointer), place=problem.place or "", message=problem.message
    )


def field_of(pointer: str) -> str:
    """``#/budget/depth`` as the field path ``budget.depth``."""
    parts = pointer.removeprefix("#").split("/")[1:]
    return ".".join(part.replace("~1", "/").replace("~0", "~") for part in parts)
