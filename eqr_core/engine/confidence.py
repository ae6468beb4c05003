"""How likely an answer is to be right, by what its trajectories did (DESIGN section 3).

Logistic regression on what a solver sees without knowing the answer: the chosen trajectory's
score and whether it converged, how many other finished trajectories came to the same grid and how
many to another, and how many waves it took. What the latter two say may depend on the score. Its
numbers, for each way of halting, are fitted on held-out puzzles by `eqr models calibrate` and stand
in the card. The task's rules take no part in the fit: an answer can be `verified` and still have a
low confidence, if the model seldom comes to right ones that way. One that is not has none: whoever
makes an answer sets it to 0 (`engine.conclusion`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from eqr_core.engine.halting import Halt
from eqr_core.errors import CheckpointError
from eqr_core.model.card import Card

FIELD = "confidence"
"""Where in a card's calibration the numbers stand."""
FEATURES = ("residual", "votes", "wave", "converged")
TERMS = (*FEATURES, "residual*votes", "residual*wave")
"""What is weighted: the features, and products of them."""
LOWEST_SCORE = 1e-9


def features(
    score: float, agreement: float, finished: int, wave: int, converged: bool
) -> tuple[float, ...]:
    """Values of FEATURES: log10 of the score, log-odds of the votes, the last wave, 0 or 1.

    `agreement` is the share of the `finished` trajectories, the chosen one among them, that have
    the answer's grid. One vote is added on both sides, so a trajectory alone is neither for nor
    against.
    """
    same = round(agreement * finished) - 1
    votes = math.log((same + 1) / (finished - same))
    return math.log10(max(score, LOWEST_SCORE)), votes, float(wave), float(converged)


@dataclass(frozen=True)
class Confidence:
    """The fitted numbers. Call it for a probability.

    >>> bounds = {"low": (-4.0, 0.0, 0.0, 0.0), "high": (0.0, 0.0, 0.0, 1.0)}
    >>> fitted = Confidence(-6.0, (-3.0, 0.0, 0.0, 0.0, 0.0, 0.0), **bounds)
    >>> round(fitted(score=0.001, agreement=1.0, finished=1, wave=0, converged=True), 3)
    0.953
    """

    intercept: float
    weights: tuple[float, ...]
    """One for each of TERMS."""
    low: tuple[float, ...]
    """Least value of each of FEATURES; one below counts as this, as the fit knows no more."""
    high: tuple[float, ...]
    """Greatest."""

    def __call__(
        self, score: float, agreement: float, finished: int, wave: int, converged: bool
    ) -> float:
        """Probability, 0 to 1, that an answer with these `features` is right."""
        values = features(score, agreement, finished, wave, converged)
        moved, votes, waves, settled = map(_within, values, self.low, self.high)
        terms = (moved, votes, waves, settled, moved * votes, moved * waves)
        odds = self.intercept + sum(w * x for w, x in zip(self.weights, terms, strict=True))
        return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the card."""
        return {
            "intercept": self.intercept,
            "weights": dict(zip(TERMS, self.weights, strict=True)),
            "low": dict(zip(FEATURES, self.low, strict=True)),
            "high": dict(zip(FEATURES, self.high, strict=True)),
        }

    @staticmethod
    def of(card: Card) -> dict[Halt, Confidence]:
        """The numbers in a card, by way of halting; none where it was never calibrated for it.

        CheckpointError where they are there and no numbers.
        """
        fitted = card.calibration.get(FIELD, {})
        if not isinstance(fitted, dict):
            raise CheckpointError(f"card: calibration.{FIELD} of {card.name} is no object")
        return {
            halt: Confidence._of(fitted[halt], card) for halt in get_args(Halt) if halt in fitted
        }

    @staticmethod
    def _of(values: Any, card: Card) -> Confidence:
        try:
            intercept = _finite(values["intercept"])
            weights = tuple(_finite(values["weights"][name]) for name in TERMS)
            low, high = (
                tuple(_finite(values[bound][name]) for name in FEATURES)
                for bound in ("low", "high")
            )
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"card: calibration.{FIELD} of {card.name} is damaged ({error!r})"
            ) from None
        return Confidence(intercept, weights, low, high)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _finite(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
