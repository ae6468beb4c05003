"""Counts over trajectories, row by row: accuracy against residual, halting, iterations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eqr_core.engine.halting import WINDOW
from eqr_core.evaluation.calibrate import Choice, measure
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.shares import Share
from eqr_core.evaluation.trace import Traces, scores


def _decades(low: int, high: int, each: int) -> npt.NDArray[np.float64]:
    """10^low to 10^high, `each` a decade, to six digits."""
    values = np.logspace(low, high, (high - low) * each + 1)
    return np.array([float(f"{value:.6g}") for value in values])


BINS_PER_DECADE = 4
DECADES = (-8, 1)
"""Scores beyond count in the outermost bins."""
EDGES = _decades(*DECADES, BINS_PER_DECADE)
THRESHOLDS = _decades(-6, 0, 8)
"""Tolerances at which halting is replayed, eight a decade."""

Residuals = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def final_scores(residual: Residuals) -> npt.NDArray[np.float64]:
    """Mean of the last three residuals of [trajectories, depth], of fewer where there are fewer.

    inf where the trajectory diverged.
    """
    score = residual[:, -WINDOW:].mean(1, dtype=np.float64)
    return np.where(np.isfinite(score), score, np.inf)


class ResidualCurve:
    """The paper's Fig. 1: share of right trajectories in each bin of the final score."""

    def __init__(self) -> None:
        self._all = np.zeros(len(EDGES) - 1, np.int64)
        self._right = np.zeros(len(EDGES) - 1, np.int64)
        self.diverged = 0

    def add(self, residual: Residuals, right: Flags) -> None:
        """Count trajectories [trajectories, depth] that ran to the full depth."""
        score = final_scores(residual)
        finite = np.isfinite(score)
        self.diverged += int((~finite).sum())
        place = np.searchsorted(EDGES, score[finite], side="right") - 1
        place = place.clip(0, len(self._all) - 1)
        np.add.at(self._all, place, 1)
        np.add.at(self._right, place, right[finite, -1])

    def to_dict(self) -> list[dict[str, Any]]:
        """One entry for each bin with trajectories in it."""
        return [
            {
                "low": float(EDGES[i]),
                "high": float(EDGES[i + 1]),
                **_share("trajectories", Share(int(self._right[i]), int(self._all[i]))),
            }
            for i in np.flatnonzero(self._all)
        ]


class Reliability:
    """What halting at each threshold would give: precision, recall, steps (`calibrate.measure`)."""

    def __init__(self) -> None:
        self._sums = np.zeros((len(THRESHOLDS), 5))

    def add(self, residual: Residuals, right: Flags) -> None:
        """Replay halting on trajectories [trajectories, depth] that ran to the full depth."""
        traces = Traces(scores(residual), right)
        for sums, threshold in zip(self._sums, THRESHOLDS, strict=True):
            choice = measure(traces, float(threshold))
            count = choice.trajectories
            sums += (
                choice.stopped,
                choice.stopped_right,
                choice.right,
                count,
                choice.mean_steps * count,
            )

    def to_dict(self) -> list[dict[str, Any]]:
        """One entry for each threshold, from the lowest."""
        return [
            _reliability(choice)
            for threshold, sums in zip(THRESHOLDS.tolist(), self._sums.tolist(), strict=True)
            if (choice := _choice(threshold, *sums)).trajectories
        ]


@dataclass
class _Class:
    puzzles: int = 0
    iterations: Counter[int] = field(default_factory=Counter)


class Iterations:
    """Outer steps until the first trajectory of each puzzle converges, by rating."""

    def __init__(self, tolerance: float, ratings: RatingClasses) -> None:
        self._tolerance = tolerance
        self._ratings = ratings
        self._classes = {name: _Class() for name in ratings.names}

    def add(self, residual: Residuals, rating: int) -> None:
        """Count one puzzle by the residuals [steps] of its first trajectory; none: 0 steps."""
        group = self._classes[self._ratings.name(rating)]
        group.puzzles += 1
        reached = scores(residual[None])[0] <= self._tolerance
        if not residual.size:
            group.iterations[0] += 1
        elif reached.any():
            group.iterations[int(reached.argmax()) + 1] += 1

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """For each rating class that occurs: puzzles, converged, and how many after n steps."""
        return {
            name: {
                "puzzles": group.puzzles,
                "converged": group.iterations.total(),
                "iterations": {str(n): group.iterations[n] for n in sorted(group.iterations)},
            }
            for name, group in self._classes.items()
            if group.puzzles
        }


def _choice(
    threshold: float, stopped: float, stopped_right: float, right: float, count: float, steps: float
) -> Choice:
    return Choice(
        tolerance=threshold,
        stopped=int(stopped),
        stopped_right=int(stopped_right),
        right=int(right),
        trajectories=int(count),
        mean_steps=steps / count if count else 0.0,
    )


def _reliability(choice: Choice) -> dict[str, Any]:
    precision, recall = choice.precision, choice.recall
    return {
        "threshold": choice.tolerance,
        "trajectories": choice.trajectories,
        "stopped": choice.stopped,
        "stopped_right": choice.stopped_right,
        "right": choice.right,
        "precision": precision.value,
        "precision_interval": list(precision.interval),
        "recall": recall.value,
        "recall_interval": list(recall.interval),
        "mean_steps": choice.mean_steps,
    }


def _share(unit: str, share: Share) -> dict[str, Any]:
    return {
        unit: share.total,
        "right": share.count,
        "accuracy": share.value,
        "interval": list(share.interval),
    }
