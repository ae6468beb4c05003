"""The smallest fixed budget that is as accurate as the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eqr_core.bench.workload import Workload
from eqr_core.engine.budget import Budget
from eqr_core.evaluation.evaluate import evaluate
from eqr_core.evaluation.sweep import Sweep

ALLOWANCE = 0.003
"""Accuracies this near count as equal: 0.3 points."""


@dataclass(frozen=True)
class Fixed:
    """A fixed budget: `breadth` trajectories of `depth` outer steps for every puzzle."""

    depth: int
    breadth: int
    accuracy: float | None = None
    """Exact accuracy on the workload; None where it was not measured."""
    reached: bool | None = None
    """Whether that is the engine's, within the allowance; None where it was not measured."""

    @property
    def nfe(self) -> int:
        """Outer steps of a puzzle."""
        return self.depth * self.breadth


def match_fixed(
    workload: Workload, budget: Budget, accuracy: float, on_rows: Callable[[int], None]
) -> Fixed:
    """Depths and breadths in powers of two up to the budget's, the cheapest that is good enough.

    The best there is, marked, where none is. `on_rows` gets the puzzles done since the last call.
    """
    found: Fixed | None = None
    best = Fixed(budget.depth, 1, 0.0, False)
    for breadth in _doubling(1, budget.breadth):
        depths = [d for d in _doubling(4, budget.depth) if found is None or d * breadth < found.nfe]
        if not depths:
            break
        sweep = Sweep(tuple(depths), (breadth,), ("exhausted",))
        evaluation = evaluate(
            workload.checkpoint, workload.rows, sweep, on_rows=lambda count, _: on_rows(count)
        )
        for report in evaluation.reports:
            reached = report.exact_accuracy >= accuracy - ALLOWANCE
            one = Fixed(report.depth, breadth, report.exact_accuracy, reached)
            if reached and (found is None or one.nfe < found.nfe):
                found = one
            if (one.accuracy or 0, -one.nfe) > (best.accuracy or 0, -best.nfe):
                best = one
    return found or best


def _doubling(first: int, last: int) -> list[int]:
    values = [min(first, last)]
    while values[-1] < last:
        values.append(min(2 * values[-1], last))
    return values
