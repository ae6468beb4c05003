"""When a trajectory has reached its fixed point (DESIGN section 2: score, converged)."""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW = 3
"""Residuals that a score averages: the paper's window."""


def score(residuals: Sequence[float]) -> float:
    """Mean of the last three residuals, of fewer where there are fewer; inf of none."""
    last = list(residuals)[-WINDOW:]
    return sum(last) / len(last) if last else math.inf


def has_converged(residuals: Sequence[float], tolerance: float | None) -> bool:
    """Whether the score of at least three residuals is at or below `tolerance`.

    Without a tolerance (a checkpoint that was never calibrated) nothing has converged.
    """
    return tolerance is not None and len(residuals) >= WINDOW and score(residuals) <= tolerance


def has_diverged(residual: float) -> bool:
    """Whether the state is no longer finite."""
    return not math.isfinite(residual)
