"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from eqr_core.engine.budget import Budget, check_choice, check_number, check_whole
from eqr_core.engine.selection import Selection
from eqr_core.engine.trajectory import Prediction, Shard
from eqr_core.errors import BudgetError, shown
from eqr_core.tasks.base import Grid, Task

MAX_SEED = 2**64 - 1
MAX_NOISE = 10.0
MAX_PRIORITY = 1000


@dataclass(frozen=True)
class SolveRequest:
    """One grid to solve. BudgetError names the field that is outside its limits."""

    task: Task
    grid: Grid
    model: str
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    """0 to 2**64 − 1. The same seed gives the same answer, alone or under load."""
    noise: float = 0.0
    """β: standard deviation of the path noise in every update of every trajectory."""
    selection: Selection = "residual"
    priority: int = 0
    """A lower number goes first, −1000 to 1000."""
    history: bool = False
    """Keep the residual of every outer step."""
    shard: Shard | None = None
    """Where it is a part of a request: `budget.breadth` trajectories of one of its waves."""
    id: str = ""
    """Empty: the engine makes one."""

    def __post_init__(self) -> None:
        check_whole("seed", self.seed, 0, MAX_SEED)
        check_whole("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        check_number("noise", self.noise)
        if not 0 <= self.noise <= MAX_NOISE:
            raise BudgetError("noise", f"{shown(self.noise)} is not between 0 and {MAX_NOISE:g}")
        check_choice("selection", self.selection, get_args(Selection))


@dataclass(frozen=True)
class TrajectoryResult:
    """One trajectory of an answer."""

    index: int
    wave: int
    iterations: int
    """Outer steps made."""
    residual: float
    """Score: mean residual of the last three outer steps; inf when diverged."""
    converged: bool
    verified: bool
    outcome: str
    """converged, exhausted, cut (another one was first), diverged, stopped (deadline, cancel)."""
    grid: Grid
    """Its last prediction; the input grid where it made none."""
    history: tuple[float, ...] = ()
    """Residual of every outer step, where the request asked for it."""
    prediction: Prediction | None = None
    """The answer tokens that `grid` shows; None where it made none."""


@dataclass(frozen=True)
class Answer:
    """What a request came to (DESIGN section 5)."""

    id: str
    task: str
    model: str
    grid: Grid
    """The chosen trajectory's prediction; the input grid where no trajectory made one."""
    text: str
    residual: float
    """The chosen trajectory's score; inf where there is none."""
    converged: bool
    verified: bool
    finish_reason: str
    iterations: int
    """Outer steps of the chosen trajectory."""
    nfe: int
    """Outer steps of all trajectories together."""
    layers: int
    """Block passes of the chosen trajectory."""
    started: int
    """Trajectories that were given at least one outer step."""
    finished_converged: int
    lost: int
    """Trajectories whose worker died, again and again; always 0 within one engine."""
    agreement: float
    """Share of the finished trajectories with this grid, the chosen one included; 0 of none."""
    confidence: float | None
    """Probability of being right, as calibrated, and 0 for what is not verified; None where the
    checkpoint was not calibrated for it, with path noise, and without an answer
    (`engine.confidence`)."""
    seed: int
    trajectories: tuple[TrajectoryResult, ...]
    queue_seconds: float
    """From submission to the first slot."""
    solve_seconds: float
    """From the first slot to the end."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer at all: false at a deadline before any outer step."""
        return self.finish_reason == "converged" or self.started > 0


@dataclass(frozen=True)
class Progress:
    """Where a request stands: the trajectory of its present wave with the lowest score."""

    iteration: int
    residual: float
    grid: Grid
    passed: int
    """Outer steps that each running trajectory of the wave has made."""


def already_solved(request: SolveRequest) -> Answer:
    """The answer to a full grid that obeys the rules: itself, without an outer step."""
    return Answer(
        id=request.id,
        task=request.task.name,
        model=request.model,
        grid=request.grid,
        text=request.task.text(request.grid),
        residual=0.0,
        converged=True,
        verified=True,
        finish_reason="converged",
        iterations=0,
        nfe=0,
        layers=0,
        started=0,
        finished_converged=0,
        lost=0,
        agreement=1.0,
        confidence=1.0,
        seed=request.seed,
        trajectories=(),
        queue_seconds=0.0,
        solve_seconds=0.0,
    )
