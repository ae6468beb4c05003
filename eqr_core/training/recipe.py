"""A training recipe: everything that decides what a run learns, as plain values in a TOML file."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from eqr_core.errors import GridError, ModelError, RecipeError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.sizes import is_size, named
from eqr_core.tasks import task_at
from eqr_core.tasks.base import Task

RECIPES = Path(__file__).parent / "recipes"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
SIZE = re.compile(r"([0-9]{1,3})x([0-9]{1,3})")

Optimizer = Literal["muon", "adamw", "adam_atan2"]
Supervision = Literal["segmented", "trajectory"]
Precision = Literal["float32", "bfloat16"]

WHOLE = {
    "steps": (1, 10**9),
    "depth": (1, 4096),
    "warmup": (0, 10**9),
    "seed": (0, 2**63 - 1),
    "validation_rows": (1, 10**6),
    "validate_every": (1, 10**9),
    "batch": (1, 65_536),
    "generate": (5, 10**8),
    "rows": (1, 10**6),
}
REAL = {
    "exploration": (0.0, 1.0),
    "q_weight": (0.0, 1e3),
    "matrix_lr": (1e-9, 10.0),
    "lr": (1e-9, 10.0),
    "weight_decay": (0.0, 10.0),
    "decay": (0.0, 1.0),
    "clip": (1e-9, 1e9),
    "ema": (0.0, 1.0),
    "reveal": (0.0, 1.0),
    "reveal_until": (0.0, 1.0),
    "share": (1e-9, 1e9),
}


@dataclass(frozen=True)
class SizeMix:
    """Puzzles of one size, and their part in the mix."""

    size: str
    share: float
    """Share of the optimiser steps that train on this size, relative to the other sizes."""
    batch: int
    generate: int
    """How many puzzles to generate where no data file of this size is given."""
    clues: tuple[int, int] | None = None
    """Fewest and most clues of a generated puzzle; None leaves out all that can be spared."""
    sources: dict[str, float] = field(default_factory=dict)
    """Share of the samples to draw from each source of a data file, relative to the others; a
    source that is not named gives none. Empty: every puzzle is as likely. Generated puzzles are
    always drawn evenly."""

    generator: dict[str, Any] = field(default_factory=dict)
    """What the task's generator is asked for beside; for mazes the range of steps of each kind."""

    @property
    def options(self) -> dict[str, Any]:
        """All that the generator is asked for."""
        return {**self.generator, **({"clues": self.clues} if self.clues else {})}

    def __post_init__(self) -> None:
        _check_limits(self, f"puzzles of {self.size}: ")
        for name, share in self.sources.items():
            if not _is_a(int | float, share) or not share > 0:
                raise RecipeError(f"puzzles of {self.size}: sources.{name} is {share!r}, not > 0")


@dataclass(frozen=True)
class HeldOut:
    """Generated puzzles of a size that are validated on and never trained on."""

    size: str
    rows: int
    depth: int
    """Outer steps at which they are judged; training need not have gone so far."""
    generator: dict[str, Any] = field(default_factory=dict)
    """As in `SizeMix`."""

    def __post_init__(self) -> None:
        _check_limits(self, f"held_out of {self.size}: ")


@dataclass(frozen=True)
class Recipe:
    """One run of segmented online training (paper section 4; REFERENCE, Training)."""

    name: str
    operator: OperatorConfig
    puzzles: tuple[SizeMix, ...]
    steps: int
    """Optimiser steps; each runs one outer step of every sample in the batch."""
    depth: int = 16
    """Outer steps after which a sample leaves the batch; 1 trains one step from a fresh state."""
    supervision: Supervision = "segmented"
    """`segmented` (SOT) steps the optimiser after every outer step, `trajectory` once after
    all `depth` outer steps, each of which has a loss."""
    act: bool = True
    """Whether a sample leaves the batch early, as soon as the halting logit says so (ACT)."""
    exploration: float = 0.1
    """Probability that a sample must first reach a random minimum of 2 to `depth` steps."""
    q_weight: float = 0.5
    """Weight of the halting loss."""
    optimizer: Optimizer = "muon"
    """`muon` trains the blocks' matrices with torch.optim.Muon and the rest with AdamW;
    `adam_atan2` is the paper's."""
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
    augment: bool = False
    """Draw every puzzle as a random image under its task's symmetries. `units` has them built
    in and gains nothing."""
    precision: Precision = "float32"
    seed: int = 0
    validation_rows: int = 300
    """Puzzles of each size held out, or a fifth of them where there are few."""
    validate_every: int = 1000
    """Optimiser steps between two validations."""
    untrained_sizes: tuple[str, ...] = ()
    """Sizes the checkpoint is offered for without having seen them, as cards state them (`sizes`);
    never with `token`."""

    held_out: tuple[HeldOut, ...] = ()
    """Where there are any, the best checkpoint is the one that does best on them on average: it
    is selected by how it extrapolates. Else the first of `puzzles` decides."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(str(self.name)):
            raise RecipeError(f"name is {self.name!r}; it must be letters, digits, - and _")
        for name, allowed in (
            ("optimizer", Optimizer),
            ("precision", Precision),
            ("supervision", Supervision),
        ):
            if getattr(self, name) not in get_args(allowed):
                raise RecipeError(
                    f"{name} is {getattr(self, name)!r}; it must be one of "
                    f"{', '.join(get_args(allowed))}"
                )
        for name in ("act", "augment"):
            if not isinstance(getattr(self, name), bool):
                raise RecipeError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        if self.act and self.supervision == "trajectory":
            raise RecipeError("supervision trajectory runs every sample to depth; set act = false")
        _check_limits(self, "")
        for size in self.untrained_sizes:
            if not is_size(str(size)):
                raise RecipeError(f"untrained_sizes: {size!r} must read like 9x9 or 5x5-60x60")
        trained = [mix.size for mix in self.puzzles]
        sizes = [*trained, *self.untrained_sizes]
        if not self.puzzles:
            raise RecipeError("puzzles is empty; the recipe needs at least one size")
        if len(set(sizes)) < len(sizes):
            raise RecipeError(f"a size stands twice among {', '.join(sizes)}")
        others = [*named(self.untrained_sizes), *(one.size for one in self.held_out)]
        for size in [*trained, *others]:
            task_of_size(self.operator.task, size)
            if not self.operator.takes(size):
                raise RecipeError(f"size is {size}; the operator's frame is {self.operator.frame}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the card and for resuming; fields newer than runs only where set."""
        values = {**asdict(self), "operator": self.operator.to_dict()}
        for mix in values["puzzles"]:
            if not mix["generator"]:
                del mix["generator"]
        if not values["held_out"]:
            del values["held_out"]
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """A recipe from plain values; RecipeError names unknown, missing and wrong fields."""
        _check_fields(Recipe, values, "")
        for name in ("puzzles", "untrained_sizes", "held_out"):
            if not isinstance(values.get(name, []), list | tuple):
                raise RecipeError(f"{name} is {values[name]!r}; it must be a list")
        if not isinstance(values["operator"], dict):
            raise RecipeError(f"operator is {values['operator']!r}; it must be a table")
        try:
            operator = OperatorConfig.from_dict(values["operator"])
        except ModelError as error:
            raise RecipeError(str(error)) from None
        return Recipe(
            **{
                **values,
                "operator": operator,
                "puzzles": tuple(_size_mix(item) for item in values["puzzles"]),
                "held_out": tuple(_held_out(item) for item in values.get("held_out", ())),
                "untrained_sizes": tuple(values.get("untrained_sizes", ())),
            }
        )


def task_of_size(name: str, size: str) -> Task:
    """The task of that name at a size such as ``9x9``; RecipeError where there is none."""
    match = SIZE.fullmatch(str(size))
    if match is None:
        raise RecipeError(f"size is {size!r}; it must read like 9x9")
    try:
        return task_at(name, int(match[1]), int(match[2]))
    except (GridError, ModelError) as error:
        raise RecipeError(str(error)) from None


def _check_fields(kind: type, values: object, where: str) -> None:
    if not isinstance(values, dict):
        raise RecipeError(f"{where}{values!r} is not a table")
    known = {item.name for item in fields(kind)}
    needed = {
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    }
    if unknown := sorted(set(values) - known):
        raise RecipeError(f"{where}unknown fields: {', '.join(unknown)}")
    if missing := sorted(needed - set(values)):
        raise RecipeError(f"{where}missing fields: {', '.join(missing)}")


def _check_limits(values: Recipe | SizeMix | HeldOut, where: str) -> None:
    for limits, kinds, kind in ((WHOLE, int, "a whole number"), (REAL, int | float, "a number")):
        for name, (low, high) in limits.items():
            if not hasattr(values, name):
                continue
            value = getattr(values, name)
            if not _is_a(kinds, value) or not low <= value <= high:
                raise RecipeError(
                    f"{where}{name} is {value!r}; it must be {kind} from {low:g} to {high:g}"
                )


def _is_a(kinds: Any, value: object) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _size_mix(values: object) -> SizeMix:
    _check_fields(SizeMix, values, "puzzles: ")
    assert isinstance(values, dict)  # narrows the type; _check_fields refused the rest
    clues, sources = values.get("clues"), values.get("sources", {})
    if clues is not None and not (
        isinstance(clues, list | tuple) and [type(count) for count in clues] == [int, int]
    ):
        raise RecipeError(f"puzzles: clues is {clues!r}; it must be two whole numbers")
    for name, table in (("sources", sources), ("generator", values.get("generator", {}))):
        if not isinstance(table, dict):
            raise RecipeError(f"puzzles: {name} is {table!r}; it must be a table")
    return SizeMix(**{**values, "clues": None if clues is None else tuple(clues)})


def _held_out(values: object) -> HeldOut:
    _check_fields(HeldOut, values, "held_out: ")
    assert isinstance(values, dict)  # narrows the type; _check_fields refused the rest
    if not isinstance(values.get("generator", {}), dict):
        raise RecipeError(f"held_out: generator is {values['generator']!r}; it must be a table")
    return HeldOut(**values)


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
