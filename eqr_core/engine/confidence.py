"""How likely an answer is to be right, by what its trajectories did (DESIGN section 3).

Logistic regression on three things that a solver sees without knowing the answer: the chosen
trajectory's score, how many other finished trajectories came to the same grid and how many to
another, and how many waves it took. What the latter two say may depend on the score. Its numbers
are fitted on held-out puzzles by `eqr models calibrate` and stand in the card. The task's rules
take no part: an answer can be `verified` and still have a low confidence, if the model seldom comes
to right ones that way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from eqr_core.errors import CheckpointError
from eqr_core.model.card import Card

FIELD = "confidence"
"""Where in a card's calibration the numbers stand."""
FEATURES = ("residual", "votes", "wave")
TERMS = (*FEATURES, "residual*votes", "residual*wave")
"""What is weighted: the features, and the products of the score's with the others."""
LOWEST_SCORE = 1e-9


def features(score: float, agreement: float, finished: int, wave: int) -> tuple[float, ...]:
    """Values of FEATURES: log10 of the score, log-odds of the votes, number of the last wave.

    `agreement` is the share of the `finished` trajectories, the chosen one among them, that have
    the answer's grid. One vote is added on both sides, so a trajectory alone is neither for nor
    against.
    """
    same = round(agreement * finished) - 1
    votes = math.log((same + 1) / (finished - same))
    return math.log10(max(score, LOWEST_SCORE)), votes, float(wave)


@dataclass(frozen=True)
class Confidence:
    """The fitted numbers. Call it for a probability.

    >>> bounds = {"low": (-4.0, 0.0, 0.0), "high": (0.0, 0.0, 0.0)}
    >>> fitted = Confidence(-6.0, (-3.0, 0.0, 0.0, 0.0, 0.0), **bounds)
    >>> round(fitted(score=0.001, agreement=1.0, finished=1, wave=0), 3)
    0.953
    """

    intercept: float
    weights: tuple[float, ...]
    """One for each of TERMS."""
    low: tuple[float, ...]
    """Least value of each of FEATURES; one below counts as this, as the fit knows no more."""
    high: tuple[float, ...]
    """Greatest."""

    def __call__(self, score: float, agreement: float, finished: int, wave: int) -> float:
        """Probability, 0 to 1, that an answer with these `features` is right."""
        values = features(score, agreement, finished, wave)
        moved, votes, waves = map(_within, values, self.low, self.high)
        terms = (moved, votes, waves, moved * votes, moved * waves)
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
    def of(card: Card) -> Confidence | None:
        """The numbers in a card; None where it was never calibrated for it.

        CheckpointError where they are there and no numbers.
        """
        values = card.calibration.get(FIELD)
        if values is None:
            return None
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


def confidence_of(
    fitted: Confidence | None, noise: float, score: float, votes: tuple[float, int], wave: int
) -> float | None:
    """An answer's confidence, or None where there is nothing to tell it by.

    That is without numbers, without an answer (an infinite score), and with path noise, which
    keeps every score above about √2·β while the numbers are fitted without. `votes` is the
    agreement and the number of finished trajectories.
    """
    if fitted is None or noise or not math.isfinite(score):
        return None
    return fitted(score, *votes, wave)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _finite(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
