"""What a path is: stages, each a change to the one before it, and what they are tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import Any

from eqr_core.training.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One step of the path: what it changes in the stage before it."""

    name: str
    operator: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """Held-out puzzles of one size, and the fixed budgets under which they are solved."""

    size: str
    rows: int
    depths: tuple[int, ...]
    breadths: tuple[int, ...] = (1,)

    def file(self, out: File) -> File:
        """Where they are."""
        return out / f"test-{self.size}.csv"


@dataclass(frozen=True)
class Path:
    """Stages that are trained on the same puzzles for as long, and tested on the same."""

    training: Recipe
    """Of the first stage; the others change it."""
    stages: tuple[Stage, ...]
    puzzles: int
    """How many to generate, those of the first test among them."""
    tests: tuple[Held, ...]
    """The first is of the size that is trained on."""
    make: Callable[[Path, File], None]
    """Writes `train_file` and the files of all `tests` into a folder."""
    native: bool = False
    """Train with the native kernels, where the machine has them."""

    def recipe(self, stage: int, seed: int) -> Recipe:
        """The recipe of stage number `stage`: the first one with the changes up to there."""
        recipe = replace(self.training, seed=seed)
        for step in self.stages[: stage + 1]:
            operator = replace(recipe.operator, **step.operator)
            recipe = replace(recipe, operator=operator, **step.training)
        return recipe


def train_file(out: File) -> File:
    """Where the training puzzles are."""
    return out / "train.csv"
