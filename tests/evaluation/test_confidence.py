from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from eqr_core.engine.confidence import FIELD, Confidence
from eqr_core.engine.halting import Halt
from eqr_core.evaluation.confidence import (
    Answers,
    fit,
    fit_confidence,
    reliability,
    replay_answers,
)
from eqr_core.evaluation.trace import Recording
from eqr_core.model.card import Card
from tests.engine.tiny import config

TOLERANCE = 0.01
CARD = Card("tiny", "sudoku", config(), ("4x4",))


def recording(puzzles: int, seed: int = 0, spurious: float = 0.0) -> Recording:
    """Trajectories of 16 steps, two a puzzle, that settle right or go on moving wrong.

    A share `spurious` of the wrong ones settles too. Wrong predictions differ from each other.
    """
    luck = np.random.default_rng(seed)
    rows = puzzles * 2
    hard = luck.random(puzzles).repeat(2)
    right = luck.random(rows) > hard
    settles = right | (luck.random(rows) < spurious)
    residual = np.where(settles[:, None], 10.0 ** -np.arange(16), 0.3).astype(np.float32)
    residual *= luck.uniform(0.5, 1.0, residual.shape).astype(np.float32)
    prediction = np.where(right, 0, np.tile([1, 2], puzzles))[:, None].repeat(16, 1)
    prediction[:, :2] = 3
    correct = right[:, None].repeat(16, 1)
    correct[:, :2] = False
    q = np.where(correct & (np.arange(16) >= 6), 5.0, -5.0).astype(np.float32)
    return Recording(2, residual, prediction.astype(np.int32), correct, q)


def test_budgets_are_answered_as_the_engine_would() -> None:
    made = recording(30)
    answers = replay_answers(made, TOLERANCE)
    assert len(answers.right) == 30 * 2 * 2
    one = answers.right.reshape(30, 2, 2)
    assert np.array_equal(one[:, 1, 1], made.right.reshape(30, 2, 16)[:, 0, -1])
    assert np.array_equal(one[:, 0, 0], made.right.reshape(30, 2, 16).any((1, 2)))
    votes = answers.values[:, 1].reshape(30, 2, 2)
    same = np.equal(*made.prediction.reshape(30, 2, 16)[:, :, -1].T)
    assert np.allclose(votes[:, 1, 0], np.where(same, np.log(2), np.log(0.5)))
    assert not votes[:, :, 1].any()


def test_a_clean_gap_is_told_apart_but_nothing_is_claimed_for_certain() -> None:
    made = fit_confidence(recording(200), TOLERANCE)
    by_halt = Confidence.of(replace(CARD, calibration={FIELD: made}))
    assert set(by_halt) == {"residual", "q", "unchanged"}
    cases: list[tuple[Halt, float]] = [("residual", 1e-3), ("q", 1e-8)]
    for halt, score in cases:
        fitted = by_halt[halt]
        assert 0.97 < fitted(score, 1.0, 1, 0, True) < 1
        assert 0 < fitted(0.2, 1.0, 1, 0, False) < 0.06
        assert made[halt]["brier"] < 0.01 < made[halt]["brier_of_base_rate"]
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize("spurious", [0.3, 0.7])
def test_claims_hold_on_puzzles_that_were_not_seen(spurious: float) -> None:
    """Where wrong trajectories settle too, the claims are lower, and as often right as claimed."""
    table = fit_confidence(recording(400, 1, spurious), TOLERANCE)["residual"]["reliability"]
    assert sum(row["answers"] for row in table) == 400 * 4
    for row in table:
        if row["answers"] >= 100:
            assert abs(row["claimed"] - row["found"]) < 0.1


def test_the_fit_is_the_most_likely_one() -> None:
    luck = np.random.default_rng(2)
    values = luck.normal(size=(4000, 4))
    odds = 0.5 + values @ np.array([-1.0, 0.7, 0.0, 0.3])
    right = luck.random(4000) < 1 / (1 + np.exp(-odds))
    found = fit(Answers(values, right, np.arange(4000)))
    assert found.intercept == pytest.approx(0.5, abs=0.12)
    assert found.weights == pytest.approx((-1.0, 0.7, 0.0, 0.3, 0.0, 0.0), abs=0.12)
    assert found.low == tuple(values.min(0))


@pytest.mark.parametrize(("share", "claim"), [(1, 201 / 202), (0, 1 / 202)])
def test_of_one_kind_alone_the_count_decides(share: int, claim: float) -> None:
    values = np.random.default_rng(3).normal(size=(400, 4))
    found = fit(Answers(values, np.full(400, bool(share)), np.arange(400) // 2))
    assert found(0.1, 1.0, 1, 0, True) == pytest.approx(claim, abs=1e-6)


def test_a_table_counts_each_claim_once() -> None:
    table = reliability(np.array([0.0, 0.3, 0.4, 1.0]), np.array([False, True, False, True]))
    assert [(row["low"], row["answers"], row["right"]) for row in table] == [
        (0.0, 1, 0),
        (0.1, 2, 1),
        (0.995, 1, 1),
    ]
    assert table[1]["claimed"] == pytest.approx(0.35)
    assert table[1]["found"] == 0.5
