"""The stages of the path and the scale at which they are run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from eqr_core.model.config import OperatorConfig
from eqr_core.training.recipe import Recipe, SizeMix

SIDE = 6
SIZE = f"{SIDE}x{SIDE}"
CLUES = 14
PUZZLES = 3000
TEST_ROWS = 250
DEPTH = 16
CYCLES, UPDATES = 1, 3
"""Updates of one cycle, over both states: every stage passes as many layers an outer step."""
TRAINING = Recipe(
    name="construction",
    operator=OperatorConfig(
        task="sudoku",
        mixer="token",
        hidden=32,
        blocks=CYCLES * UPDATES,
        cycles=1,
        updates=1,
        states="none",
        tokens=SIDE * SIDE,
        vocabulary=SIDE + 2,
        damping=0.0,
        noise=0.0,
        initial="fixed",
    ),
    puzzles=(SizeMix(SIZE, 1.0, 128, PUZZLES),),
    steps=600,
    depth=1,
    act=False,
    warmup=50,
    reveal=0.0,
    augment=True,
    precision="bfloat16",
    ema=0.98,
    validate_every=600,
)
"""The first stage; the others change it."""


@dataclass(frozen=True)
class Stage:
    """One step of the path: what it changes in the stage before it."""

    name: str
    operator: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


PATH = (
    Stage("feed-forward"),
    Stage("weight-tied", {"states": "single", "blocks": 1, "cycles": CYCLES, "updates": UPDATES}),
    Stage("+ SOT", training={"depth": DEPTH}),
    Stage("+ hierarchical", {"states": "hierarchical", "updates": UPDATES - 1}),
    Stage("+ ACT", training={"act": True}),
    Stage("+ RI", {"initial": "random"}),
    Stage("+ NI", {"noise": 0.01, "damping": 0.05}),
)


def recipe_of(stage: int, seed: int) -> Recipe:
    """The recipe of stage number `stage`: the first one with the changes up to there."""
    recipe = replace(TRAINING, seed=seed)
    for step in PATH[: stage + 1]:
        operator = replace(recipe.operator, **step.operator)
        recipe = replace(recipe, operator=operator, **step.training)
    return recipe
