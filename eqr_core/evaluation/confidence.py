"""Fit the confidence of answers (`engine.confidence`) on recorded trajectories.

Budgets of several depths and breadths are replayed on the recording by the engine's own rules, so
the answers come as users get them: the first that converged, the best of a few that did not, and
those cut short. Each puzzle counts once, however many budgets answer it. Targets are moved off 0
and 1 as by Platt (1999): who has seen n puzzles right and none wrong claims (n + 1) / (n + 2).

What the fit is worth is measured on puzzles that it has not seen: five fits, each without a fifth
of the puzzles, judge the answers of that fifth, and all together make the reliability table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from eqr_core.engine.budget import Budget, Stop
from eqr_core.engine.confidence import FEATURES, TERMS, Confidence, features
from eqr_core.engine.halting import Halt
from eqr_core.evaluation.replay import Replay
from eqr_core.evaluation.shares import Share
from eqr_core.evaluation.trace import Recording

FOLDS = 5
SETTLED = 10.0
"""A score this far below the tolerance is as good as any lower one: what runs on after it has
settled does not become more right."""
HALTS: tuple[Halt, ...] = get_args(Halt)
STOPS: tuple[Stop, ...] = ("converged", "exhausted")
LEAST_DEPTH = 16
"""A shorter trajectory may be right and still move as one that never will be: what its score says
would be taken for what the same score says later."""
PENALTY = 1e-3
"""Of the squared weights, against the log-loss of one puzzle: keeps a clean gap from making
them infinite."""
ROUNDS = 100
EDGES = (0.0, 0.02, 0.1, 0.5, 0.9, 0.98, 0.995, 1.0)
"""Of the reliability table."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What replayed budgets answered."""

    values: Floats
    """[answers, FEATURES]."""
    right: npt.NDArray[np.bool_]
    puzzle: npt.NDArray[np.int64]

    def take(self, chosen: npt.NDArray[np.bool_]) -> Answers:
        """Those of the mask `chosen`."""
        return Answers(self.values[chosen], self.right[chosen], self.puzzle[chosen])


def fit_confidence(recording: Recording, tolerance: float | None) -> dict[str, Any]:
    """The numbers of `Confidence` for each way of halting, and how they hold, for the card."""
    return {halt: _fit_halt(recording, tolerance, halt) for halt in HALTS}


def _fit_halt(recording: Recording, tolerance: float | None, halt: Halt) -> dict[str, Any]:
    answers = replay_answers(recording, tolerance, halt)
    if tolerance is not None and halt == "residual":
        floor = math.log10(tolerance / SETTLED)
        answers.values[:, 0] = answers.values[:, 0].clip(min=floor)
    unseen = np.zeros(len(answers.right))
    for fold in range(FOLDS):
        held_out = answers.puzzle % FOLDS == fold
        if held_out.any() and not held_out.all():
            unseen[held_out] = _judge(fit(answers.take(~held_out)), answers.values[held_out])
    return {
        **fit(answers).to_dict(),
        "answers": len(answers.right),
        "brier": float(np.square(unseen - answers.right).mean()),
        "brier_of_base_rate": float(answers.right.var()),
        "reliability": reliability(unseen, answers.right),
    }


def replay_answers(
    recording: Recording, tolerance: float | None, halt: Halt = "residual"
) -> Answers:
    """What budgets of halved depths and breadths down from the recording's answer."""
    budgets = [
        Budget(depth, breadth, stop=stop, halt=halt)
        for stop in STOPS
        for depth in _halved(recording.residual.shape[1], LEAST_DEPTH)
        for breadth in _halved(recording.breadth, 1)
    ]
    values: list[tuple[float, ...]] = []
    right: list[bool] = []
    puzzles: list[int] = []
    for puzzle in range(recording.puzzles):
        rows = slice(puzzle * recording.breadth, (puzzle + 1) * recording.breadth)
        part = recording.take(rows)
        answer = part.prediction[part.right][0] if part.right.any() else -1
        for outcome in _replay(budgets, tolerance, part).outcomes():
            if outcome.prediction is None:
                continue
            votes = (outcome.agreement, outcome.finished)
            values.append(features(outcome.score, *votes, outcome.wave, outcome.converged))
            right.append(int(outcome.prediction) == answer)
            puzzles.append(puzzle)
    shape = (len(values), len(FEATURES))
    return Answers(np.array(values).reshape(shape), np.array(right, bool), np.array(puzzles))


def fit(answers: Answers) -> Confidence:
    """Logistic regression by Newton's method."""
    low, high = answers.values.min(0), answers.values.max(0)
    terms = _terms(answers.values)
    middle, scale = terms.mean(0), terms.std(0)
    scale[scale == 0] = 1.0
    x = np.column_stack([np.ones(len(terms)), (terms - middle) / scale])
    _, place, count = np.unique(answers.puzzle, return_inverse=True, return_counts=True)
    each = 1 / count[place]
    target = _targets(answers.right, each)
    penalty = np.diag([0.0, *[PENALTY] * len(TERMS)])
    beta = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        p = _logistic(x @ beta)
        slope = x.T @ (each * (target - p)) - penalty @ beta
        curve = (x * (each * p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]
        # Newton's full step can overshoot where the classes hardly overlap.
        beta += step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-9:
            break
    weights = beta[1:] / scale
    return Confidence(
        intercept=float(beta[0] - weights @ middle),
        weights=tuple(weights.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def reliability(claimed: Floats, right: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Claimed against found, for each range of the claim that occurs."""
    place = np.searchsorted(EDGES[1:-1], claimed, side="right")
    table = []
    for number in np.unique(place):
        inside = place == number
        share = Share(int(right[inside].sum()), int(inside.sum()))
        table.append(
            {
                "low": EDGES[number],
                "high": EDGES[number + 1],
                "answers": share.total,
                "right": share.count,
                "claimed": float(claimed[inside].mean()),
                "found": share.value,
            }
        )
    return table


def _replay(budgets: list[Budget], tolerance: float | None, part: Recording) -> Replay:
    replay = Replay(budgets, tolerance, "residual", lambda prediction: False)
    names = [[b"%d" % number for number in row] for row in part.prediction.tolist()]
    moved, halting = part.residual.tolist(), part.q.tolist()
    while not replay.done:
        steps, q = {}, {}
        for index in replay.wanted():
            step = len(replay.tracks[index].residual)
            steps[index] = (moved[index][step], names[index][step])
            q[index] = halting[index][step]
        replay.feed(steps, q)
    return replay


def _halved(largest: int, least: int) -> list[int]:
    """`largest` and its halves down to `least`; `largest` alone where it is below."""
    values = [largest]
    while values[-1] // 2 >= least:
        values.append(values[-1] // 2)
    return values


def _targets(right: npt.NDArray[np.bool_], each: Floats) -> Floats:
    good, bad = float(each[right].sum()), float(each[~right].sum())
    return np.where(right, (good + 1) / (good + 2), 1 / (bad + 2))


def _judge(fitted: Confidence, values: Floats) -> Floats:
    terms = _terms(values.clip(fitted.low, fitted.high))
    return _logistic(fitted.intercept + terms @ np.array(fitted.weights))


def _terms(values: Floats) -> Floats:
    """[answers, FEATURES] as [answers, TERMS]."""
    return np.column_stack([values, values[:, :1] * values[:, 1:3]])


def _logistic(odds: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-odds.clip(-500, 500)))
    return found
