from __future__ import annotations

import math

import numpy as np
import pytest

from eqr_core.evaluation.calibrate import measure
from eqr_core.evaluation.curves import (
    EDGES,
    THRESHOLDS,
    Iterations,
    Reliability,
    ResidualCurve,
    final_scores,
)
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.trace import Traces, scores


def test_final_scores_average_the_last_three_steps() -> None:
    residual = np.array([[9, 9, 1, 2, 3], [9, 1, 1, 1, np.nan]], np.float32)
    assert final_scores(residual).tolist() == [2.0, math.inf]
    assert final_scores(residual[:1, :2]).tolist() == [9.0]


def test_accuracy_in_bins_of_the_final_score() -> None:
    curve = ResidualCurve()
    level = np.array([2e-5, 2e-5, 2e-5, 0.5, 0.0, 500.0, np.nan], np.float32)
    residual = np.repeat(level[:, None], 4, axis=1)
    right = np.zeros((7, 4), np.bool_)
    right[[0, 1, 3], -1] = True
    right[2, 0] = True
    curve.add(residual[:4], right[:4])
    curve.add(residual[4:], right[4:])
    assert curve.diverged == 1
    bins = curve.to_dict()
    assert [(b["trajectories"], b["right"]) for b in bins] == [(1, 0), (3, 2), (1, 1), (1, 0)]
    for b, value in zip(bins[1:3], (2e-5, 0.5), strict=True):
        assert b["low"] <= value < b["high"]
        assert b["interval"][0] < b["accuracy"] <= b["interval"][1] <= 1
    assert bins[0]["low"] == EDGES[0]
    assert bins[-1]["high"] == EDGES[-1]


def test_halting_added_up_in_pieces_is_halting_on_all() -> None:
    random = np.random.default_rng(3)
    residual = (10.0 ** random.uniform(-6, 0, (12, 20))).astype(np.float32)
    right = random.random((12, 20)) < 0.5
    reliability = Reliability()
    for rows in (slice(0, 5), slice(5, 12)):
        reliability.add(residual[rows], right[rows])
    entries = reliability.to_dict()
    assert len(entries) == len(THRESHOLDS)
    for entry in entries:
        whole = measure(Traces(scores(residual), right), entry["threshold"])
        assert entry["stopped"] == whole.stopped
        assert entry["precision"] == whole.precision.value
        assert entry["recall"] == whole.recall.value
        assert entry["mean_steps"] == pytest.approx(whole.mean_steps)
    assert entries[0]["stopped"] < entries[-1]["stopped"] == 12


def test_iterations_to_converge_by_rating() -> None:
    counted = Iterations(0.1, RatingClasses((0, 10, 30)))
    counted.add(np.array([1, 0.05, 0.05, 0.05, 0.05], np.float32), 0)  # score falls at step 4
    counted.add(np.array([0.05, 0.05, 0.05], np.float32), 0)
    counted.add(np.array([1, 1, 1], np.float32), 0)
    counted.add(np.zeros(0, np.float32), 50)  # a full grid
    assert counted.to_dict() == {
        "0": {"puzzles": 3, "converged": 2, "iterations": {"3": 1, "4": 1}},
        ">30": {"puzzles": 1, "converged": 1, "iterations": {"0": 1}},
    }
