"""The folder of a run: its state, its best checkpoint, and who may go on in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from eqr_core.errors import RecipeError
from eqr_core.model.card import Card
from eqr_core.model.checkpoint import CARD, save_checkpoint
from eqr_core.training.recipe import Recipe
from eqr_core.training.state import Groups, byte_count, load_state, save_state

LARGE_BYTES = 40 * 2**20
"""Weights and moments above this keep the moments in bfloat16."""


class RunFolder:
    """Where one run keeps its files. `identity` is what a resumed run must share with it."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.identity = identity

    @property
    def has_best(self) -> bool:
        """Whether a checkpoint has been exported."""
        return (self.path / "best" / CARD).is_file()

    def load(self) -> tuple[Groups, dict[str, Any]] | None:
        """The saved state, None for a folder without a run.

        RecipeError where the state is another run's, or where files of a run stand without one.
        """
        found = load_state(self.path)
        if found is None:
            if self.has_best:
                raise RecipeError(
                    f"{self.path}: there is a checkpoint in best/ but no state of a run to go on "
                    "from; give another folder"
                )
            return None
        for name, ours in self.identity.items():
            theirs = found[1].get(name)
            if theirs != ours:
                what = _difference(name, theirs, ours)
                raise RecipeError(
                    f"{self.path}: the run was started with another {what}; "
                    "give the same one, or another folder"
                )
        return found

    def save(self, groups: Groups, values: dict[str, Any]) -> None:
        """Write the whole state; the moments of a large operator in bfloat16."""
        own = [groups[name] for name in ("weights", "average", "optimizer")]
        if sum(map(byte_count, own)) > LARGE_BYTES:
            groups = {
                **groups,
                "optimizer": {
                    name: value.bfloat16() if value.ndim else value
                    for name, value in groups["optimizer"].items()
                },
            }
        save_state(self.path, groups, {**self.identity, **values})

    def export(self, recipe: Recipe, weights: dict[str, Tensor], training: dict[str, Any]) -> None:
        """Write `weights` as the checkpoint best/, with `training` in its card."""
        card = Card(
            name=recipe.name,
            task=recipe.operator.task,
            operator=recipe.operator,
            sizes=(*(mix.size for mix in recipe.puzzles), *recipe.untrained_sizes),
            training={**self.identity, **training},
        )
        save_checkpoint(self.path / "best", weights, card)


def _difference(name: str, theirs: Any, ours: Any) -> str:
    """The innermost field that differs, with both values."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            if theirs.get(key) != ours.get(key):
                return _difference(f"{name}.{key}", theirs.get(key), ours.get(key))
    return f"{name} ({theirs!r:.80}, here {ours!r:.80})"
