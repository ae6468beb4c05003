"""A training recipe: everything that decides what a run learns, as plain values in a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from eqr_core.errors import ModelError, RecipeError
from eqr_core.model.config import OperatorConfig

RECIPES = Path(__file__).parent / "recipes"

Optimizer = Literal["muon", "adamw"]
Loss = Literal["stablemax", "softmax"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Puzzles:
    """Puzzles of one size in the mix."""

    size: str
    share: float
    """Share of the optimiser steps that train on this size."""
    batch: int
    generate: int
    """How many puzzles to generate where no data file of this size is given."""
    clues: tuple[int, int] | None = None
    """Fewest and most clues of a generated puzzle; None leaves out all that can be spared."""
    sources: dict[str, float] = field(default_factory=dict)
    """Share of the samples to draw from each source of a data file; sources that are not named
    give nothing. Empty, or with none of them in the file: every puzzle is as likely."""


@dataclass(frozen=True)
class Recipe:
    """One run of segmented online training (paper section 4; REFERENCE, Training)."""

    name: str
    operator: OperatorConfig
    puzzles: tuple[Puzzles, ...]
    steps: int
    """Optimiser steps; each runs one outer step of every sample in the batch."""
    depth: int = 16
    """Outer steps after which a sample leaves the batch."""
    exploration: float = 0.1
    """Probability that a sample must first reach a random minimum of 2 to `depth` steps."""
    loss: Loss = "stablemax"
    q_weight: float = 0.5
    """Weight of the halting loss."""
    optimizer: Optimizer = "muon"
    """`muon` trains matrices with torch.optim.Muon and the rest with AdamW."""
    matrix_lr: float = 0.02
    lr: float = 0.002
    weight_decay: float = 0.0
    warmup: int = 200
    decay: float = 0.4
    """Share of the run, at its end, over which the learning rate falls linearly to 2 %."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    reveal: float = 0.6
    """Easier puzzles first: the largest share of solution cells revealed at the start."""
    reveal_until: float = 0.1
    """Share of the run over which revealed cells fade out."""
    precision: Precision = "float32"
    seed: int = 0
    validation_rows: int = 300
    validate_every: int = 1000
    """Optimiser steps between two validations."""
    untrained_sizes: tuple[str, ...] = ()
    """Sizes the checkpoint is offered for without having seen them; never with `token`."""

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", Optimizer), ("loss", Loss), ("precision", Precision)):
            if getattr(self, name) not in get_args(allowed):
                raise RecipeError(
                    f"{name} is {getattr(self, name)!r}; it must be one of "
                    f"{', '.join(get_args(allowed))}"
                )
        if not self.puzzles:
            raise RecipeError("puzzles is empty; the recipe needs at least one size")
        positive = ("steps", "depth", "validate_every", "validation_rows", "clip", "lr")
        for name in positive:
            if not getattr(self, name) > 0:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("exploration", "decay", "ema", "reveal", "reveal_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the card and for resuming."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """A recipe from plain values; RecipeError names unknown and missing fields."""
        values = dict(values)
        known = {item.name for item in fields(Recipe)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise RecipeError(f"unknown fields: {', '.join(unknown)}")
        try:
            values["operator"] = OperatorConfig.from_dict(values["operator"])
            values["puzzles"] = tuple(_puzzles(item) for item in values["puzzles"])
            values["untrained_sizes"] = tuple(values.get("untrained_sizes", ()))
            return Recipe(**values)
        except KeyError as error:
            raise RecipeError(f"the field {error} is missing") from None
        except (TypeError, ModelError) as error:
            raise RecipeError(str(error)) from None


def _puzzles(values: dict[str, Any]) -> Puzzles:
    clues = values.get("clues")
    return Puzzles(**{**values, "clues": None if clues is None else tuple(clues)})


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe by name, or from a TOML file; RecipeError says what is wrong with it."""
    path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        raise RecipeError(
            f"there is no recipe {name_or_path!r}; known are {', '.join(recipe_names())}, "
            "or give the path of a TOML file"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from None
    try:
        return Recipe.from_dict(values)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from None
