"""Equilibrium reasoning: a learned operator iterated to a fixed point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eqr_core.engine.answer import Answer
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
    TrainingError,
)

if TYPE_CHECKING:
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
    "QueueFull",
    "RecipeError",
    "Solver",
    "TrainingError",
]


def __getattr__(name: str) -> Any:
    """`Solver` on first use: it needs torch, which takes a second that `eqr --help` can spare."""
    if name != "Solver":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eqr_core.solver import Solver

    globals()["Solver"] = Solver
    return Solver
