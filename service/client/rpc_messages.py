"""Between what the clients speak of and the messages of eqr.v1.

What protobuf cannot carry to the service (a grid that is no text, a negative seed) is refused here,
with the error that the service gives over REST.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from eqr_core.engine.budget import Budget
from eqr_core.errors import BudgetError, GridError, ModelError
from eqr_core.tasks import parse_grid
from eqr_core.tasks.sudoku import DIGITS
from service.client.calls import as_json
from service.client.errors import AnswerUnreadable, InvalidInput, problem_of
from service.messages import HALTS, INCLUDES, JOB_STATES, SELECTIONS, STOPS
from service.schemas import (
    BatchAnswer,
    BatchItem,
    BreadthCount,
    FieldProblem,
    GridRows,
    JobAnswer,
    JobProgress,
    ModelAnswer,
    ProblemDocument,
    ProgressAnswer,
    SolveAnswer,
    SolveBody,
    Timing,
    TrajectoryAnswer,
)
from service.stubs import solver_pb2 as pb

# The stubs take enum values as their own type or as names; these are values.
_STOPS: dict[str, Any] = {name: value for value, name in STOPS.items()}
_HALTS: dict[str, Any] = {name: value for value, name in HALTS.items()}
_SELECTIONS: dict[str, Any] = {name: value for value, name in SELECTIONS.items()}
_INCLUDES: dict[str, Any] = {name: value for value, name in INCLUDES.items()}
_STATES = {value: name for name, value in JOB_STATES.items()}


def solve_message(content: Mapping[str, Any], request_id: str, place: str = "#") -> pb.SolveRequest:
    """A body of ``POST /solve`` as a message. InvalidInput, with pointers below `place`."""
    try:
        body = SolveBody.model_validate_json(as_json(content))
        Budget(**body.budget.model_dump())
        grid = body.grid
        if not isinstance(grid, str):
            task, cells = parse_grid(grid, body.task)
            grid = task.text(cells)
        return _message(body, grid)
    except ValidationError as error:
        faults = [
            FieldProblem(pointer="/".join((place, *map(str, one["loc"]))), message=one["msg"])
            for one in error.errors(include_url=False, include_input=False)
        ]
        budget = all(one["loc"][0] == "budget" and one["loc"][1:] for one in error.errors())
        code = "invalid_budget" if budget else "invalid_request"
    except GridError as error:
        faults = [
            FieldProblem(pointer=f"{place}/grid", place=one.place or None, message=one.message)
            for one in error.problems
        ]
        code = "invalid_grid"
    except BudgetError as error:
        faults = [FieldProblem(pointer=f"{place}/budget/{error.field}", message=str(error))]
        code = "invalid_budget"
    except ModelError as error:
        faults = [FieldProblem(pointer=f"{place}/task", message=str(error))]
        code = "invalid_request"
    detail = "; ".join(f"{one.pointer}: {one.message}" for one in faults)
    raise InvalidInput(problem_of(code, detail, request_id, faults))


def _message(body: SolveBody, grid: str) -> pb.SolveRequest:
    given = body.budget
    budget = pb.Budget(
        depth=given.depth,
        breadth=given.breadth,
        nfe=given.nfe,
        deadline_ms=given.deadline_ms,
        tolerance=given.tolerance,
        stop=_STOPS[given.stop],
        halt=_HALTS[given.halt],
        patience=given.patience,
    )
    return pb.SolveRequest(
        grid=grid,
        task=body.task or "",
        model=body.model or "",
        budget=budget,
        seed=body.seed,
        noise=body.noise,
        selection=_SELECTIONS[body.selection],
        priority=body.priority,
        include=[_INCLUDES[one] for one in body.include],
        skip_cache=not body.cache,
    )


def answer_of(message: pb.SolveResponse) -> SolveAnswer:
    """The answer that `message` holds."""
    return SolveAnswer(
        id=message.id,
        task=message.task,
        model=message.model,
        grid=rows_of(message.text),
        text=message.text,
        residual=_optional(message, "residual"),
        converged=message.converged,
        verified=message.verified,
        finish_reason=message.finish_reason,
        iterations=message.iterations,
        nfe=message.nfe,
        layers=message.layers,
        breadth=BreadthCount(
            started=message.breadth.started,
            converged=message.breadth.converged,
            lost=message.breadth.lost,
        ),
        agreement=message.agreement,
        confidence=_optional(message, "confidence"),
        seed=message.seed,
        cached=message.cached,
        timing_ms=Timing(
            queue=message.timing_ms.queue,
            solve=message.timing_ms.solve,
            total=message.timing_ms.total,
        ),
        trajectories=[_trajectory(one) for one in message.trajectories] or None,
    )


def _trajectory(message: pb.Trajectory) -> TrajectoryAnswer:
    return TrajectoryAnswer(
        index=message.index,
        wave=message.wave,
        iterations=message.iterations,
        residual=_optional(message, "residual"),
        converged=message.converged,
        verified=message.verified,
        outcome=message.outcome,
        text=message.text,
        history=[one if math.isfinite(one) else None for one in message.history] or None,
    )


def event_of(message: pb.SolveStreamResponse) -> ProgressAnswer | SolveAnswer:
    """The event that `message` holds; AnswerUnreadable for one of a later version."""
    kind = message.WhichOneof("event")
    if kind == "result":
        return answer_of(message.result)
    if kind == "progress":
        text = message.progress.text
        return ProgressAnswer(
            iteration=message.progress.iteration,
            residual=_optional(message.progress, "residual"),
            grid=rows_of(text),
            text=text,
        )
    raise AnswerUnreadable("an event of the stream is none of this client's version")


def batch_of(message: pb.SolveBatchResponse, request_id: str) -> BatchAnswer:
    """The ends of a batch."""
    return BatchAnswer(results=[_item(one, request_id) or BatchItem() for one in message.results])


def _item(message: pb.ItemResult, request_id: str) -> BatchItem | None:
    kind = message.WhichOneof("outcome")
    if kind == "answer":
        return BatchItem(answer=answer_of(message.answer))
    if kind == "error":
        return BatchItem(error=_item_problem(message.error, request_id))
    return None


def _item_problem(error: pb.ItemError, request_id: str) -> ProblemDocument:
    faults = [
        FieldProblem(pointer=pointer_of(one.field), place=one.place or None, message=one.message)
        for one in error.faults
    ]
    return problem_of(error.code, error.detail, request_id, faults)


def job_of(message: pb.Job, request_id: str) -> JobAnswer:
    """The job that `message` holds; AnswerUnreadable for a state of a later version."""
    if message.state not in _STATES:
        raise AnswerUnreadable(f"a job is in a state this client does not know: {message.state}")
    ended = message.HasField("ended_ms")
    return JobAnswer.model_validate(
        {
            "id": message.id,
            "state": _STATES[message.state],
            "progress": JobProgress(done=message.done, total=message.total),
            "created_at": _moment(message.created_ms),
            "ended_at": _moment(message.ended_ms) if ended else None,
            "expires_at": _moment(message.expires_ms) if message.HasField("expires_ms") else None,
            "error": message.error or None,
            "results": [_item(one, request_id) for one in message.results] if ended else None,
        }
    )


def model_of(message: pb.Model) -> ModelAnswer:
    """The model that `message` holds; its measured results come over REST alone."""
    return ModelAnswer(
        name=message.name,
        task=message.task,
        sizes=list(message.sizes),
        parameters=message.parameters,
        digest=message.digest,
        tolerance=_optional(message, "tolerance"),
        description=message.description,
        license=message.license,
        results=[],
    )


def rows_of(text: str) -> GridRows:
    """The rows of a grid's text: integers of a square of digits, else characters."""
    if not set(text) <= {*DIGITS, "."}:
        return [list(row) for row in text.split("/")]
    side = math.isqrt(len(text))
    values: list[int | str] = [DIGITS.find(char) + 1 for char in text]
    return [values[start : start + side] for start in range(0, side * side, side)]


def pointer_of(field: str) -> str:
    """``budget.depth`` as the JSON pointer ``#/budget/depth``."""
    return "#" + "".join(f"/{part}" for part in field.split(".") if part)


def _optional(message: Any, name: str) -> float | None:
    return getattr(message, name) if message.HasField(name) else None


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1e3, UTC)
