"""What travels over REST: request bodies (strict), answers, models and problems.

The fields are the contract of DESIGN section 5. Nothing here imports torch, so the ingress and
the clients stay light.
"""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eqr_core.engine.answer import MAX_NOISE, MAX_PRIORITY, MAX_SEED
from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.halting import Halt

Score = Annotated[float | None, Field(description="Relative residual; null when not finite.")]
GridRows = list[list[int | str]]

EXAMPLE_GRID = "1.....3..4.....2"


class RequestModel(BaseModel):
    """Bodies are strict: no unknown field, no number that is a string, a bool, NaN or infinite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class BudgetBody(RequestModel):
    """What a solve may spend; the engine checks the limits."""

    depth: int = Field(
        default=Budget.depth, description="Most iterations (outer steps) of one trajectory."
    )
    breadth: int = Field(default=Budget.breadth, description="Most trajectories.")
    nfe: int | None = Field(default=None, description="Most outer steps over all trajectories.")
    deadline_ms: float | None = Field(
        default=None, description="Time after which the best answer so far is returned."
    )
    tolerance: float | None = Field(
        default=None,
        description="Residual at which a trajectory counts as converged; default: the model's",
    )
    stop: Stop = Budget.stop
    halt: Halt = Field(
        default=Budget.halt,
        description="What counts as converged: a residual within the tolerance, a positive halting "
        "output of the model (`q`), or an unchanged prediction.",
    )
    patience: int | None = Field(
        default=None,
        description="Iterations in a row for that; default: 1 for residual, 3 for q, 6 for "
        "unchanged.",
    )


class SolveBody(RequestModel):
    """Body of ``POST /solve``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grid": EXAMPLE_GRID}]})

    # Any: the parser of grids tells what is wrong, and at which place.
    grid: Any = Field(
        description="A Sudoku: rows of integers (0: blank), or one string of digits ('.' or '0': "
        "blank). A maze: rows of '#', ' ', 'S' and 'G', or one string with '/' between them.",
        json_schema_extra={
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                {"type": "array", "items": {"type": "string"}},
            ]
        },
    )
    task: str | None = Field(default=None, max_length=64, description="Default: from the grid.")
    model: str | None = Field(
        default=None, min_length=1, max_length=128, description="Default: from the grid's shape."
    )
    budget: BudgetBody = BudgetBody()
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Same seed, same answer.")
    noise: float = Field(
        default=0.0, ge=0.0, le=MAX_NOISE, description="Path noise β in every update."
    )
    selection: Literal["residual", "majority"] = "residual"
    priority: int = Field(
        default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Smaller goes first."
    )
    include: tuple[Literal["trajectories", "history"], ...] = Field(
        default=(),
        max_length=2,
        strict=False,
        description="What else the answer should hold; history of at most 100,000 iterations.",
    )
    cache: bool = Field(default=True, description="Whether a kept answer will do.")


class BreadthCount(BaseModel):
    """Trajectories of a solve: how many began, converged, and were lost."""

    started: int
    converged: int
    lost: int


class Timing(BaseModel):
    """Milliseconds in the engine's queue, in its slots, and in the service altogether."""

    queue: float
    solve: float
    total: float


class TrajectoryAnswer(BaseModel):
    """One trajectory of the solve, in ``include: ["trajectories"]`` or ``["history"]``."""

    index: int
    wave: int
    iterations: int
    residual: Score
    converged: bool
    verified: bool
    outcome: str
    text: str
    history: list[float | None] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Residual of every iteration.",
    )


class SolveAnswer(BaseModel):
    """Answer of ``POST /solve``. Ending without convergence is an answer, with its reason."""

    id: str
    task: str
    model: str
    grid: GridRows
    text: str
    residual: Score
    converged: bool
    verified: bool
    finish_reason: str
    iterations: int
    nfe: int
    layers: int
    breadth: BreadthCount
    agreement: float
    confidence: float | None = Field(
        default=None,
        description="Probability of being right, as calibrated on held-out puzzles; 0 where the "
        "answer is not verified, null where the model was not calibrated for it, and with noise.",
    )
    seed: int
    cached: bool
    timing_ms: Timing
    trajectories: list[TrajectoryAnswer] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


class ProgressAnswer(BaseModel):
    """How the leading trajectory stands: data of the `progress` events of a stream."""

    iteration: int
    residual: Score
    grid: GridRows
    text: str


class ModelAnswer(BaseModel):
    """A model of ``GET /models``: what its card says."""

    name: str
    task: str
    sizes: list[str]
    parameters: int
    digest: str
    tolerance: float | None
    calibration: dict[str, Any] = Field(
        default={}, description="How tolerance and confidence were found, and how they held."
    )
    description: str
    license: str
    results: list[dict[str, Any]]


class ModelsAnswer(BaseModel):
    """Answer of ``GET /models``."""

    models: list[ModelAnswer]


class HealthAnswer(BaseModel):
    """Answer of the health paths."""

    status: Literal["live", "ready"]


class FieldProblem(BaseModel):
    """One fault of a body: where it is, and what is wrong."""

    model_config = ConfigDict(frozen=True)

    pointer: str = Field(description="JSON pointer into the body, as a URI fragment.")
    place: str | None = Field(
        default=None, exclude_if=lambda value: value is None, description="Place within a grid."
    )
    message: str


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it, with a stable `code` and the request's id."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = Field(default=None, exclude_if=lambda value: value is None)


class BatchItem(BaseModel):
    """The end of one item of a batch or a job: an answer or a problem."""

    answer: SolveAnswer | None = Field(default=None, exclude_if=lambda value: value is None)
    error: ProblemDocument | None = Field(default=None, exclude_if=lambda value: value is None)


class BatchAnswer(BaseModel):
    """Answer of ``POST /solve/batch``: the items' ends in the order of the requests."""

    results: list[BatchItem]


class JobProgress(BaseModel):
    """How many items of a job have ended, of how many."""

    done: int
    total: int


JobState = Literal["queued", "running", "done", "failed", "cancelled", "expired"]


class JobAnswer(BaseModel):
    """A job of ``/jobs``. Its results come with its end; an item that never ended is null."""

    id: str
    state: JobState
    progress: JobProgress
    created_at: datetime
    ended_at: datetime | None = Field(default=None, exclude_if=lambda value: value is None)
    expires_at: datetime | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="When the job and its results are forgotten.",
    )
    error: str | None = Field(
        default=None, exclude_if=lambda value: value is None, description="Why it failed."
    )
    results: list[BatchItem | None] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
"""What an Idempotency-Key looks like: visible ASCII characters."""


def new_id() -> str:
    """A fresh random id, 32 hex digits."""
    return uuid.uuid4().hex
