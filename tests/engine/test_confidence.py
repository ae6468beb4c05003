from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from eqr_core.engine.answer import SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.confidence import FEATURES, FIELD, TERMS, Confidence, features
from eqr_core.engine.document import answer_document
from eqr_core.engine.engine import Engine
from eqr_core.errors import CheckpointError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import find_checkpoint, read_card
from tests.engine.tiny import FULL, GRID, TASK, config, weights

LOW, HIGH = (-5.0, -2.0, 0.0, 0.0), (0.0, 2.0, 4.0, 1.0)
FITTED = Confidence(-2.0, (-1.5, 0.8, -0.3, 0.4, -0.2, 0.1), LOW, HIGH)
CARD = Card("tiny", "sudoku", config(), ("4x4",), tolerance=0.05)


def calibrated(fitted: Confidence = FITTED) -> Card:
    return replace(CARD, calibration={FIELD: {"residual": {**fitted.to_dict(), "brier": 0.1}}})


def test_features_count_votes_beside_the_chosen() -> None:
    assert features(0.01, 1.0, 1, 0, True) == (-2.0, 0.0, 0.0, 1.0)
    assert features(0.01, 0.75, 4, 2, False) == pytest.approx((-2.0, math.log(3 / 2), 2.0, 0.0))
    assert features(0.01, 0.25, 4, 2, False)[1] == pytest.approx(math.log(1 / 4))
    assert features(0.0, 1.0, 1, 0, True)[0] == -9.0


def test_a_probability_follows_the_numbers_and_no_further_than_they_were_fitted() -> None:
    odds = -2.0 + 1.5 * 2 + (0.8 + 0.2 * 2) * math.log(3 / 2) - 0.3 - 0.1 * 2 + 0.4
    assert FITTED(0.01, 0.75, 4, 1, True) == pytest.approx(1 / (1 + math.exp(-odds)))
    assert FITTED(1e-8, 1.0, 1, 0, True) == FITTED(1e-5, 1.0, 1, 0, True)
    assert FITTED(0.01, 1.0, 1, 9, False) == FITTED(0.01, 1.0, 1, 4, False)
    assert Confidence(-1e6, (0.0,) * 6, (0.0,) * 4, (0.0,) * 4)(1.0, 1.0, 1, 0, True) == 0.0


def test_numbers_go_through_a_card_unchanged() -> None:
    assert Confidence.of(Card.from_json(replace(calibrated(), digest="0" * 64).to_json())) == {
        "residual": FITTED
    }
    assert Confidence.of(CARD) == {}


def test_a_card_with_something_else_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="confidence of tiny is no object"):
        Confidence.of(replace(CARD, calibration={FIELD: 7}))


def damaged(change: Any) -> dict[str, Any]:
    values = FITTED.to_dict()
    change(values)
    return values


@pytest.mark.parametrize(
    "values",
    [
        7,
        [],
        {"intercept": 1.0},
        damaged(lambda v: v.update(intercept="1")),
        damaged(lambda v: v.update(intercept=True)),
        damaged(lambda v: v["weights"].pop(TERMS[4])),
        damaged(lambda v: v["weights"].update(residual=math.inf)),
        damaged(lambda v: v["low"].pop(FEATURES[1])),
        damaged(lambda v: v.update(high=3)),
    ],
)
def test_an_engine_refuses_damaged_numbers_at_its_start(values: Any) -> None:
    card = replace(CARD, calibration={FIELD: {"q": values}})
    with pytest.raises(CheckpointError, match="confidence of tiny is damaged"):
        Engine.of([(weights(config()), card)])


def solve(card: Card, **request: Any) -> Any:
    asked = {"budget": Budget(depth=6, breadth=4, stop="exhausted"), **request}
    (answer,) = Engine.of([(weights(config(), gain=2.0), card)]).solve(
        [SolveRequest(TASK, asked.pop("grid", GRID), "tiny", **asked)]
    )
    return answer


def test_an_answer_has_the_confidence_of_its_trajectories() -> None:
    engine = Engine(["sudoku"])
    fitted = Confidence.of(read_card(find_checkpoint("sudoku")))["residual"]
    budgets = Budget(depth=6, breadth=4, stop="exhausted"), Budget(depth=2, breadth=4)
    answer, waves = engine.solve([SolveRequest(TASK, GRID, "sudoku", one) for one in budgets])
    assert answer.verified
    assert waves.verified
    converged = answer.converged
    assert answer.confidence == fitted(answer.residual, answer.agreement, 4, 0, converged)
    assert answer_document(answer)["confidence"] == answer.confidence
    assert max(t.wave for t in waves.trajectories) == 2
    assert waves.confidence == fitted(waves.residual, waves.agreement, 4, 2, False)


def test_an_answer_that_breaks_the_rules_has_none() -> None:
    answer = solve(calibrated())
    assert not answer.verified
    assert FITTED(answer.residual, answer.agreement, 4, 0, answer.converged) > 0.01
    assert answer.confidence == 0.0


def test_there_is_none_without_numbers_and_with_noise() -> None:
    assert solve(CARD).confidence is None
    assert solve(calibrated(), noise=0.01).confidence is None
    assert solve(calibrated(), budget=Budget(depth=6, breadth=2, halt="q")).confidence is None
    assert solve(calibrated(), grid=FULL).confidence == 1.0
