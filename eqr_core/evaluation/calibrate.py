"""Choose a checkpoint's tolerance: the score at which a trajectory may stop and be believed.

For each tolerance halting is replayed causally: a trajectory stops at the first step whose score
is at or below it, and is judged by its prediction then. *Precision* is the share of right
predictions among the stopped trajectories, *recall* the share of the trajectories that are right,
when they stop or at full depth, which stop with a right prediction.

The rule: the largest tolerance with at least the target precision and the least recall (a larger
tolerance stops earlier), up to a ceiling: on easy puzzles every trajectory may be right long
before it settles, and a tolerance chosen by that alone would call everything converged. Of that
one a tenth is taken, where it has the least recall too: a few hundred puzzles do not show the
lowest scores of wrong trajectories, and right ones fall through a decade in a few steps. A
landscape whose wrong trajectories converge too may not reach both; then the tolerance with the
highest F½ is taken, which counts precision twice as much as recall.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eqr_core.data.packed import PackedPuzzles
from eqr_core.engine.confidence import FIELD
from eqr_core.errors import DataError, ModelError
from eqr_core.evaluation.confidence import fit_confidence
from eqr_core.evaluation.shares import Share
from eqr_core.evaluation.trace import Traces, follow
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import build_operator, load_checkpoint, update_card
from eqr_core.model.sizes import fits

TARGET = 0.995
LEAST_RECALL = 0.5
CEILING = 0.1
"""No state that still moves by more than a tenth of its norm is taken for a fixed point."""
MARGIN = 10.0
CANDIDATES = 400
"""Tolerances tried, evenly spaced in their logarithm from the lowest score to the highest."""


@dataclass(frozen=True)
class Choice:
    """One tolerance and what halting at it gives on the traces it was measured on."""

    tolerance: float
    stopped: int
    """Trajectories that reached the tolerance."""
    stopped_right: int
    """Those of them whose prediction was right when they stopped."""
    right: int
    """Trajectories right when they stopped, or else at full depth."""
    trajectories: int
    mean_steps: float
    """Steps run: up to the stop, or the full depth."""

    @property
    def precision(self) -> Share:
        """Right among the stopped."""
        return Share(self.stopped_right, self.stopped)

    @property
    def recall(self) -> Share:
        """Stopped and right among the right."""
        return Share(self.stopped_right, self.right)

    @property
    def f_half(self) -> float:
        """F½ of precision and recall; 0 where nothing right stops."""
        precision, recall = self.precision.value or 0.0, self.recall.value or 0.0
        low = 0.25 * precision + recall
        return 1.25 * precision * recall / low if low else 0.0

    def meets(self, target: float, least_recall: float) -> bool:
        """Whether precision and recall reach these shares."""
        precision, recall = self.precision.value or 0.0, self.recall.value or 0.0
        return precision >= target and recall >= least_recall


def measure(traces: Traces, tolerance: float) -> Choice:
    """Replay halting at `tolerance` on `traces`."""
    reached = traces.score <= tolerance
    stopped = reached.any(1)
    depth = reached.shape[1]
    at = np.where(stopped, reached.argmax(1), depth - 1)
    right_then = traces.right[np.arange(len(at)), at]
    right = (stopped & right_then) | traces.right[:, -1]
    return Choice(
        tolerance=tolerance,
        stopped=int(stopped.sum()),
        stopped_right=int((stopped & right_then).sum()),
        right=int(right.sum()),
        trajectories=len(at),
        mean_steps=float((at + 1).mean()),
    )


def choose(
    traces: Traces, target: float = TARGET, least_recall: float = LEAST_RECALL
) -> tuple[Choice, str] | None:
    """The tolerance that the rule above takes, and which half of it: ``target`` or ``f_half``.

    None where no trajectory stops with a right prediction at any tolerance.
    """
    tried = [measure(traces, tolerance) for tolerance in _candidates(traces.score)]
    fitting = [choice for choice in tried if choice.meets(target, least_recall)]
    if fitting:
        largest = max(fitting, key=lambda choice: choice.tolerance)
        careful = measure(traces, float(f"{largest.tolerance / MARGIN:.4g}"))
        return (careful if careful.meets(target, least_recall) else largest), "target"
    best = max(tried, key=lambda choice: choice.f_half, default=None)
    return None if best is None or not best.stopped_right else (best, "f_half")


def calibrate(
    folder: Path,
    puzzles: PackedPuzzles,
    *,
    depth: int = 64,
    breadth: int = 4,
    seed: int = 0,
    target: float = TARGET,
    least_recall: float = LEAST_RECALL,
    data: str = "",
    compiled: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> Card:
    """Calibrate the checkpoint in `folder` on `puzzles` and write the result into its card.

    The puzzles must be held out from training, and from the data the results are stated on. The
    intervals take the trajectories of one puzzle for independent, which makes them narrow.
    """
    for name, share in (("target", target), ("least_recall", least_recall)):
        if not 0 < share <= 1:
            raise DataError(f"{name} is {share}; it must be above 0 and at most 1")
    weights, card = load_checkpoint(folder)
    task = puzzles.task
    if task.name != card.task or not fits(card.sizes, task.size):
        raise ModelError(
            f"{card.name} solves {card.task} {', '.join(card.sizes)}, not {task.name} {task.size}"
        )
    operator = build_operator(weights, card, task)
    recording = follow(
        operator,
        puzzles,
        depth=depth,
        breadth=breadth,
        seed=seed,
        compiled=compiled,
        on_rows=on_rows,
    )
    traces = recording.traces
    found = choose(traces, target, least_recall)
    tolerance = None if found is None else found[0].tolerance
    setting = {
        "data": data,
        "data_digest": puzzles.digest,
        "puzzles": len(puzzles),
        "depth": depth,
        "breadth": breadth,
        "seed": seed,
        "noise": 0.0,
        "target_precision": target,
        "least_recall": least_recall,
        "ceiling": CEILING,
        "exact_at_depth": _counts(Share(int(traces.right[:, -1].sum()), len(traces.right))),
    }
    card = replace(
        card,
        tolerance=tolerance,
        calibration={
            **setting,
            **_outcome(found),
            FIELD: fit_confidence(recording, tolerance),
        },
    )
    update_card(folder, card)
    return card


def _candidates(score: npt.NDArray[np.float64]) -> list[float]:
    settled = score[(score > 0) & (score <= CEILING)]
    if not settled.size:
        return []
    low, high = float(settled.min()), float(settled.max())
    return [float(f"{value:.6g}") for value in np.geomspace(low, high, CANDIDATES)]


def _outcome(found: tuple[Choice, str] | None) -> dict[str, Any]:
    if found is None:
        return {"rule": "none: no trajectory stops with a right prediction"}
    choice, rule = found
    return {
        "rule": rule,
        "precision": _counts(choice.precision),
        "recall": _counts(choice.recall),
        "stopped": _counts(Share(choice.stopped, choice.trajectories)),
        "mean_steps": choice.mean_steps,
    }


def _counts(share: Share) -> dict[str, Any]:
    return {
        "count": share.count,
        "total": share.total,
        "share": share.value,
        "interval": list(share.interval),
    }
