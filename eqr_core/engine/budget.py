"""What one request may spend (DESIGN sections 2, 3 and 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from eqr_core.engine.halting import PATIENCE, Halt
from eqr_core.errors import BudgetError, shown

Stop = Literal["converged", "verified", "exhausted"]

MAX_DEPTH = 4096
MAX_BREADTH = 1024
MAX_NFE = MAX_DEPTH * MAX_BREADTH
MAX_DEADLINE_MS = 3_600_000.0
MAX_TOLERANCE = 10.0


@dataclass(frozen=True)
class Budget:
    """Limits of one request; BudgetError names the field that is outside its own.

    >>> Budget(depth=16, breadth=4).stop
    'converged'
    """

    depth: int = 64
    """Outer steps of one trajectory at most, 1 to 4096."""
    breadth: int = 16
    """Trajectories at most, 1 to 1024."""
    nfe: int | None = None
    """Outer steps of all trajectories together at most; None: depth · breadth."""
    deadline_ms: float | None = None
    """Milliseconds from submission after which the best answer so far is returned."""
    tolerance: float | None = None
    """Score at which a trajectory counts as converged; None: the checkpoint's own."""
    stop: Stop = "converged"
    """`converged`: waves until one converges. `verified`: waves until an answer obeys the
    rules. `exhausted`: all trajectories at once, each to its full depth."""
    halt: Halt = "residual"
    """What it takes for a trajectory to have converged. `residual`: a score within the tolerance.
    `q`: a positive halting output. `unchanged`: the same prediction as one step before."""
    patience: int | None = None
    """Outer steps in a row after which that must hold, 1 to `depth`; None: 1 for `residual`, 3 for
    `q`, 6 for `unchanged`."""

    def __post_init__(self) -> None:
        check_whole("depth", self.depth, 1, MAX_DEPTH)
        check_whole("breadth", self.breadth, 1, MAX_BREADTH)
        if self.nfe is not None:
            check_whole("nfe", self.nfe, 1, MAX_NFE)
        if self.deadline_ms is not None:
            check_positive("deadline_ms", self.deadline_ms, MAX_DEADLINE_MS)
        if self.tolerance is not None:
            check_positive("tolerance", self.tolerance, MAX_TOLERANCE)
        check_choice("stop", self.stop, get_args(Stop))
        check_choice("halt", self.halt, get_args(Halt))
        if self.tolerance is not None and self.halt != "residual":
            raise BudgetError("tolerance", f"it is for halt residual; halt is {self.halt}")
        if self.patience is not None:
            check_whole("patience", self.patience, 1, self.depth)

    @property
    def steps_in_a_row(self) -> int:
        """The patience, or the rule's own where none was asked for."""
        return PATIENCE[self.halt] if self.patience is None else self.patience


def check_whole(field: str, value: object, low: int, high: int) -> None:
    """Raise BudgetError unless `value` is an int (no bool) from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BudgetError(field, f"{shown(value)} is not a whole number")
    if not low <= value <= high:
        raise BudgetError(field, f"{shown(value)} is not between {low} and {high}")


def check_positive(field: str, value: object, high: float) -> None:
    """Raise BudgetError unless `value` is a finite number above 0 and at most `high`."""
    check_number(field, value)
    if not 0 < value <= high:  # type: ignore[operator]
        raise BudgetError(field, f"{shown(value)} is not above 0 and at most {high:.0f}")


def check_number(field: str, value: object) -> None:
    """Raise BudgetError unless `value` is a finite int or float (no bool)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BudgetError(field, f"{shown(value)} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BudgetError(field, f"{shown(value)} is not a finite number")


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise BudgetError unless `value` is one of `choices`."""
    if value not in choices:
        raise BudgetError(field, f"{shown(value)} is not one of {', '.join(choices)}")
