from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eqr_core.data.generate import generate_sudoku
from eqr_core.data.packed import PackedPuzzles, pack
from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.confidence import Confidence
from eqr_core.engine.engine import Engine
from eqr_core.errors import DataError
from eqr_core.evaluation.calibrate import calibrate, choose, measure
from eqr_core.evaluation.trace import Traces, follow, scores
from eqr_core.model.checkpoint import build_operator, load_checkpoint
from eqr_core.tasks.sudoku import Sudoku
from tests.checkpoints import save_random

TASK = Sudoku((2, 2))


def traces(*rows: tuple[list[float], list[int]]) -> Traces:
    """Traces of trajectories given as (scores, right or not at each step)."""
    return Traces(
        np.array([score for score, _ in rows]), np.array([right for _, right in rows], dtype=bool)
    )


@pytest.fixture
def puzzles() -> PackedPuzzles:
    return pack(generate_sudoku(TASK, 12, seed=1))


def test_a_score_is_the_mean_of_three_residuals() -> None:
    got = scores(np.array([[3.0, 6.0, 9.0, 0.0]], np.float32))
    assert got.tolist() == [[math.inf, math.inf, 6.0, 5.0]]
    assert scores(np.ones((1, 2), np.float32)).tolist() == [[math.inf, math.inf]]


def test_halting_is_replayed_causally() -> None:
    """It stops at the first step under the tolerance and is judged then, not by a later one."""
    early_wrong = ([0.5, 0.1, 0.01], [0, 0, 1])
    late_right = ([0.5, 0.4, 0.1], [0, 0, 1])
    never = ([0.9, 0.9, 0.9], [0, 0, 1])
    lost = ([0.9, 0.9, 0.9], [1, 1, 0])
    choice = measure(traces(early_wrong, late_right, never, lost), 0.2)
    assert (choice.stopped, choice.stopped_right, choice.right) == (2, 1, 3)
    assert choice.mean_steps == (2 + 3 + 3 + 3) / 4
    assert (choice.precision.value, choice.recall.value) == (1 / 2, 1 / 3)


def test_a_tenth_of_the_largest_tolerance_that_is_precise_enough_is_taken() -> None:
    rows = [([0.5, 10.0 ** -(2 + i)], [0, 1]) for i in range(4)] + [([0.5, 0.05], [0, 0])] * 4
    found = choose(traces(*rows), target=0.99)
    assert found is not None
    choice, rule = found
    assert rule == "target"
    assert 0.001 <= choice.tolerance < 0.005
    assert (choice.stopped, choice.stopped_right) == (3, 3)
    larger = measure(traces(*rows), 0.05)
    assert larger.precision.value == 0.5


def test_without_recall_at_a_tenth_the_largest_tolerance_is_taken() -> None:
    found = choose(traces(*[([0.5, 0.04], [0, 1])] * 4, *[([0.5, 0.3], [0, 0])] * 4), target=0.99)
    assert found is not None
    assert found[0].tolerance == pytest.approx(0.04)
    assert found[0].recall.value == 1.0


def test_without_a_precise_tolerance_the_best_trade_off_is_taken() -> None:
    """Regime (a): wrong trajectories converge too, and further."""
    rows = [([0.5, 0.1], [0, 1])] * 6 + [([0.5, 0.01], [0, 0])] * 2
    found = choose(traces(*rows), target=0.995)
    assert found is not None
    choice, rule = found
    assert rule == "f_half"
    assert choice.precision.value == 6 / 8
    assert choice.recall.value == 1


def test_a_least_recall_keeps_tolerances_from_being_useless() -> None:
    rows = [([0.5, 0.001], [0, 1]), *[([0.5, 0.1], [0, 1])] * 9, ([0.5, 0.05], [0, 0])]
    precise = choose(traces(*rows), target=0.99, least_recall=0.05)
    useful = choose(traces(*rows), target=0.99, least_recall=0.5)
    assert precise is not None
    assert useful is not None
    assert (precise[0].stopped, precise[1]) == (1, "target")
    assert (useful[0].stopped_right, useful[1]) == (10, "f_half")


def test_a_moving_state_is_not_taken_for_a_fixed_point() -> None:
    """All are right from the first step on; still the tolerance stays under the ceiling."""
    found = choose(traces(*[([0.9, 0.5, 0.08, 0.01], [1, 1, 1, 1])] * 5))
    assert found is not None
    assert found[0].tolerance == pytest.approx(0.08)
    assert choose(traces(*[([0.9, 0.5], [1, 1])] * 5)) is None


def test_nothing_right_gives_no_tolerance() -> None:
    assert choose(traces(([0.5, 0.1], [0, 0]))) is None
    assert choose(traces(([math.inf, math.inf], [0, 1]))) is None
    assert choose(traces(([math.nan, math.nan], [0, 1]))) is None


def test_traces_are_what_the_engine_does(tmp_path: Path, puzzles: PackedPuzzles) -> None:
    """The same starts, residuals and predictions as `Engine`, whatever the batch."""
    save_random(tmp_path / "m")
    engine = Engine([tmp_path / "m"])
    answers = engine.solve(
        [
            SolveRequest(
                TASK,
                TASK.decode(question),
                engine.choose_model(TASK),
                Budget(depth=6, breadth=2, stop="exhausted"),
                seed=7 + row,
                history=True,
            )
            for row, question in enumerate(puzzles.question)
        ]
    )
    second = [TASK.encode(answer.trajectories[1].grid) for answer in answers]
    weights, card = load_checkpoint(tmp_path / "m")
    operator = build_operator(weights, card, TASK)
    got = follow(operator, replace(puzzles, answer=np.stack(second)), depth=6, breadth=2, seed=7)
    histories = np.array(
        [trajectory.history for answer in answers for trajectory in answer.trajectories]
    )
    moved = histories.astype(np.float32)
    np.testing.assert_allclose(got.traces.score, scores(moved), rtol=1e-4)
    assert got.right[1::2, -1].all()


def test_calibration_goes_into_the_card(tmp_path: Path, puzzles: PackedPuzzles) -> None:
    """The answers are the operator's own fixed points, so that every trajectory ends right."""
    before = save_random(tmp_path / "m")
    weights, card = load_checkpoint(tmp_path / "m")
    operator = build_operator(weights, card, TASK)
    own = replace(puzzles, answer=_predictions(operator, puzzles))
    done: list[int] = []
    card = calibrate(
        tmp_path / "m", own, depth=40, breadth=1, seed=3, data="own", on_rows=done.append
    )
    _, stored = load_checkpoint(tmp_path / "m")
    assert stored == card
    assert card.digest == before.digest
    assert sum(done) == len(own)
    assert card.tolerance is not None
    calibration = card.calibration
    assert calibration["rule"] == "target"
    assert calibration["precision"]["share"] >= calibration["target_precision"] == 0.995
    assert calibration["recall"]["share"] >= 0.5
    assert calibration["data_digest"] == own.digest
    assert (calibration["puzzles"], calibration["depth"], calibration["seed"]) == (12, 40, 3)
    for halt, fitted in Confidence.of(stored).items():
        if halt != "q":
            assert fitted(card.tolerance, 1.0, 1, 0, True) > 0.8
        table = calibration["confidence"][halt]["reliability"]
        assert sum(row["answers"] for row in table) == 12 * 4


def test_a_checkpoint_that_solves_nothing_keeps_no_tolerance(
    tmp_path: Path, puzzles: PackedPuzzles
) -> None:
    save_random(tmp_path / "m", tolerance=0.5)
    card = calibrate(tmp_path / "m", puzzles, depth=4, breadth=1)
    assert card.tolerance is None
    assert card.calibration["rule"].startswith("none")
    assert card.calibration["exact_at_depth"]["count"] == 0


@pytest.mark.parametrize(
    ("name", "value"), [("target", 0.0), ("target", 1.1), ("least_recall", -1)]
)
def test_shares_outside_their_limits_are_refused(
    tmp_path: Path, puzzles: PackedPuzzles, name: str, value: float
) -> None:
    save_random(tmp_path / "m")
    limit: dict[str, Any] = {name: value}
    with pytest.raises(DataError, match=f"{name} is"):
        calibrate(tmp_path / "m", puzzles, **limit)


def _predictions(operator: object, puzzles: PackedPuzzles) -> np.ndarray:
    from eqr_core.engine.randomness import initial_state
    from eqr_core.model.operator import Operator

    assert isinstance(operator, Operator)
    rows = []
    with torch.inference_mode():
        for row, question in enumerate(puzzles.question):
            e = operator.embed(torch.from_numpy(question)[None])
            start = initial_state(3 + row, 0, operator.state_shape, operator.state_count)
            state = tuple(part[None] for part in start)
            for _ in range(40):
                state = operator.outer_step(state, e)
            rows.append(operator.predict(operator.read(state)[0])[0].numpy())
    return np.stack(rows)
