"""Equilibrium reasoning: a learned operator iterated to a fixed point."""

from eqr_core.engine.answer import Answer, Progress, SolveRequest, TrajectoryResult
from eqr_core.engine.budget import Budget
from eqr_core.errors import (
    BudgetError,
    CheckpointError,
    DataError,
    DeadlineExceeded,
    EngineStopped,
    EqrError,
    GridError,
    ModelError,
    Problem,
    QueueFull,
    RecipeError,
)
from eqr_core.solver import Solver

__all__ = [
    "Answer",
    "Budget",
    "BudgetError",
    "CheckpointError",
    "DataError",
    "DeadlineExceeded",
    "EngineStopped",
    "EqrError",
    "GridError",
    "ModelError",
    "Problem",
    "Progress",
    "QueueFull",
    "RecipeError",
    "SolveRequest",
    "Solver",
    "TrajectoryResult",
]
