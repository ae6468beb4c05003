"""When a trajectory has converged and may stop (DESIGN section 2: score, converged).

Three rules to choose from; each must hold after so many outer steps in a row (*patience*):

- ``residual``: the score is at or below the tolerance. The paper's measure, and the default.
- ``q``: the operator's own halting output, a logit, is positive: it holds its prediction for right
  (ACT; Graves 2016, trained as in Wang et al. 2025).
- ``unchanged``: the prediction is the one of the step before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

Halt = Literal["residual", "q", "unchanged"]

PATIENCE: Mapping[Halt, int] = {"residual": 1, "q": 3, "unchanged": 6}
"""Where a budget names none; docs/performance.md says what others cost and are worth."""
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
