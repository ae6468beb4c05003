"""What clients ask for, whichever way it travels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar

from pydantic import BaseModel

from eqr_core.engine.budget import Budget
from eqr_core.errors import shown
from service.client.errors import RequestUnsendable
from service.schemas import (
    IDEMPOTENCY_KEY,
    BatchAnswer,
    JobAnswer,
    ModelAnswer,
    ModelsAnswer,
    SolveAnswer,
    new_id,
)

Answer = TypeVar("Answer", bound=BaseModel)

Operation = Literal["solve", "stream", "batch", "submit", "job", "cancel", "models", "model"]


class SolveOptions(TypedDict, total=False):
    """How to solve a grid; what is absent or None is left to the service.

    `budget` is a `Budget` or a mapping of its fields. `cache` False has it solved anew.
    """

    task: str | None
    model: str | None
    budget: Budget | Mapping[str, Any] | None
    seed: int | None
    noise: float | None
    selection: Literal["residual", "majority"] | None
    priority: int | None
    include: Iterable[Literal["trajectories", "history"]] | None
    cache: bool | None


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One call. `content` is the body that REST sends, `name` that of a job or a model.

    Its repetitions share the request id.
    """

    operation: Operation
    answer: type[Answer]
    content: Any = None
    name: str = ""
    key: str | None = None
    request_id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        if self.key is not None and not IDEMPOTENCY_KEY.fullmatch(self.key):
            raise RequestUnsendable(
                f"idempotency_key is {shown(self.key)}; it must be 1 to 255 visible ASCII "
                "characters"
            )


def solve_call(grid: Any, options: Mapping[str, Any], key: str | None = None) -> Call[SolveAnswer]:
    """Solve one grid."""
    return Call("solve", SolveAnswer, solve_body(grid, options), key=key)


def stream_call(grid: Any, options: Mapping[str, Any]) -> Call[SolveAnswer]:
    """Solve one grid and tell of it on the way."""
    return Call("stream", SolveAnswer, solve_body(grid, options))


def batch_call(
    puzzles: Iterable[Any], options: Mapping[str, Any], key: str | None = None
) -> Call[BatchAnswer]:
    """Solve several grids."""
    return Call("batch", BatchAnswer, bodies(puzzles, options), key=key)


def submit_call(
    puzzles: Iterable[Any], options: Mapping[str, Any], key: str | None = None
) -> Call[JobAnswer]:
    """Store a job, under a key of its own where none is given: to send it twice makes one job."""
    return Call("submit", JobAnswer, bodies(puzzles, options), key=key or new_id())


def job_call(job: JobAnswer | str) -> Call[JobAnswer]:
    """How a job stands; `job` is it or its id."""
    return Call("job", JobAnswer, name=job if isinstance(job, str) else job.id)


def cancel_call(job: JobAnswer | str) -> Call[JobAnswer]:
    """End a job; `job` is it or its id."""
    return Call("cancel", JobAnswer, name=job if isinstance(job, str) else job.id)


def models_call() -> Call[ModelsAnswer]:
    """All models."""
    return Call("models", ModelsAnswer)


def model_call(name: str) -> Call[ModelAnswer]:
    """One model."""
    return Call("model", ModelAnswer, name=name)


def bodies(puzzles: Iterable[Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A body for each puzzle: a grid, or a mapping of ``grid`` and options that go before."""
    if isinstance(puzzles, str | Mapping):
        raise RequestUnsendable("several puzzles are needed: a list of grids, not one grid")
    return [
        solve_body(one.get("grid"), {**options, **{k: v for k, v in one.items() if k != "grid"}})
        if isinstance(one, Mapping)
        else solve_body(one, options)
        for one in puzzles
    ]


def solve_body(grid: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``POST /solve``; what is None is left to the service."""
    given = {"grid": grid, **options}
    if isinstance(budget := given.get("budget"), Budget):
        given["budget"] = {name: one for name, one in asdict(budget).items() if one is not None}
    elif isinstance(budget, Mapping):
        given["budget"] = dict(budget)
    if isinstance(include := given.get("include"), Iterable) and not isinstance(include, str):
        given["include"] = list(include)
    return {name: value for name, value in given.items() if value is not None}


def as_json(content: Any) -> bytes:
    """`content` as JSON; RequestUnsendable where JSON cannot say it."""
    try:
        return json.dumps(content, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestUnsendable(f"the body cannot be sent as JSON: {error}") from None
