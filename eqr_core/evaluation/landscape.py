"""Which regime each input's landscape is in, from B trajectories that ran to depth D.

The paper tells four regimes apart by residual against error:

- **a** no correct attractor: nothing helps;
- **b** correct and spurious attractors side by side: breadth helps;
- **c** correct, but hard to reach: breadth first, then depth;
- **d** well aligned: depth suffices.

A finite number of trajectories shows a landscape in part, so the rules here are stated on what
was seen. A trajectory is *settled* when its final score (mean of its last three residuals) is at
most SETTLED + 2β: a fixed point is where the state hardly moves, whatever the checkpoint's
tolerance, which may have been chosen to exclude the very attractors that are looked for; with
path noise β a residual stays at √2·β. It is *right* when every cell of its prediction is. Then

- some right, none settled wrong, and at least ALIGNED of them right: **d**;
- some right, none settled wrong, fewer right: **c**;
- some right, some settled wrong: **b**;
- none right, at least half settled: **a**;
- none right, most still moving: **undecided**. There is no correct attractor or it is hard to
  reach, and B trajectories of depth D do not tell; a larger budget may.

Likewise a may turn out as b with more breadth. Who is right, hence every regime, needs the
answers; who is settled does not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, get_args

from eqr_core.evaluation.curves import Flags, Residuals, final_scores
from eqr_core.evaluation.ratings import RatingClasses
from eqr_core.evaluation.report import Subject

Regime = Literal["a", "b", "c", "d", "undecided"]
REGIMES: tuple[Regime, ...] = get_args(Regime)
MEANINGS: dict[Regime, str] = {
    "a": "no correct attractor",
    "b": "correct and spurious side by side",
    "c": "correct, hard to reach",
    "d": "well aligned",
    "undecided": "none right, still moving",
}

SETTLED = 0.01
"""Final score of a state that counts as a fixed point: it moves by a hundredth of its norm."""
ALIGNED = 0.75
"""Share of right trajectories from which one trajectory is enough."""


@dataclass(frozen=True)
class Input:
    """What the trajectories of one input showed."""

    trajectories: int
    right: int
    settled: int
    settled_wrong: int

    @property
    def regime(self) -> Regime:
        """The rules above."""
        if self.right:
            if self.settled_wrong:
                return "b"
            return "d" if self.right >= ALIGNED * self.trajectories else "c"
        return "a" if 2 * self.settled >= self.trajectories else "undecided"


def diagnose(residual: Residuals, right: Flags, noise: float = 0.0) -> Input:
    """Of one input's trajectories: residuals and right predictions, [trajectories, depth]."""
    settled = final_scores(residual) <= SETTLED + 2 * noise
    correct = right[:, -1]
    return Input(
        trajectories=len(residual),
        right=int(correct.sum()),
        settled=int(settled.sum()),
        settled_wrong=int((settled & ~correct).sum()),
    )


class Landscape:
    """Inputs in each regime, by rating and by source."""

    def __init__(self, ratings: RatingClasses) -> None:
        self._ratings = ratings
        self.inputs: list[tuple[int, Subject, Input]] = []
        """(row, puzzle, what was seen), in the order of the rows; full grids are left out."""

    def add(self, row: int, subject: Subject, seen: Input) -> None:
        """Count the input in row `row`."""
        self.inputs.append((row, subject, seen))

    def table(self) -> list[dict[str, Any]]:
        """One entry for all inputs, for each rating class and for each source that occurs."""
        groups: dict[tuple[str, str], list[Input]] = {("all", ""): []}
        for name in self._ratings.names:
            groups["rating", name] = []
        for source in sorted({subject.source for _, subject, _ in self.inputs}):
            groups["source", source] = []
        for _, subject, seen in self.inputs:
            groups["all", ""].append(seen)
            groups["rating", self._ratings.name(subject.rating)].append(seen)
            groups["source", subject.source].append(seen)
        return [
            {"by": by, "name": name, **_count(inputs)}
            for (by, name), inputs in groups.items()
            if inputs
        ]


def _count(inputs: list[Input]) -> dict[str, Any]:
    regimes = Counter(seen.regime for seen in inputs)
    trajectories = sum(seen.trajectories for seen in inputs)
    return {
        "inputs": len(inputs),
        "regimes": {regime: regimes[regime] for regime in REGIMES},
        "right_share": sum(seen.right for seen in inputs) / trajectories,
        "settled_share": sum(seen.settled for seen in inputs) / trajectories,
        "settled_wrong_share": sum(seen.settled_wrong for seen in inputs) / trajectories,
    }
