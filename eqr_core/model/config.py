"""What an operator is made of, as plain values that a card can hold."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

from eqr_core.errors import ModelError, shown
from eqr_core.model.sizes import SIZE, fits

Mixer = Literal["token", "attention", "units", "grid"]
States = Literal["hierarchical", "single", "none"]
Stacks = Literal["shared", "separate"]
Gradient = Literal["cycle", "update"]
Initial = Literal["random", "fixed"]

CHOICES: dict[str, tuple[str, ...]] = {
    "mixer": get_args(Mixer),
    "states": get_args(States),
    "stacks": get_args(Stacks),
    "gradient": get_args(Gradient),
    "initial": get_args(Initial),
}
FEED_FORWARD: dict[str, object] = {
    "cycles": 1,
    "updates": 1,
    "gradient": "cycle",
    "damping": 0.0,
    "noise": 0.0,
    "initial": "fixed",
}
"""What a net without states must have: there is nothing to repeat, to damp or to draw."""

SCHEDULE = ("cycles", "updates", "gradient", "damping", "noise")
"""How the blocks are passed. The same weights serve whatever it is."""

LIMITS: dict[str, tuple[float, float]] = {
    "hidden": (1, 65_536),
    "blocks": (1, 1024),
    "cycles": (1, 1024),
    "updates": (1, 1024),
    "heads": (1, 1024),
    "q_outputs": (1, 1024),
    "vocabulary": (0, 65_536),
    "tokens": (1, 65_536),
    "constraint_kinds": (0, 64),
    "expansion": (0.01, 64.0),
    "damping": (0.0, 0.999),
    "noise": (0.0, 1000.0),
}
"""Least and largest value of each number; whole numbers where the least one is."""


@dataclass(frozen=True)
class OperatorConfig:
    """Hyper-parameters of f_θ (paper section 3 and its Sudoku and Maze configurations).

    Layers per outer step = `cycles` · `updates` (+ `cycles` for the second state) · `blocks`.
    The baselines are configurations too: TRM has `initial` fixed, `damping` 0 and `noise` 0;
    HRM (Wang et al. 2025) besides `stacks` separate and `gradient` update; a feed-forward net has
    `states` none.
    """

    task: str
    mixer: Mixer
    hidden: int
    blocks: int
    """Distinct blocks that one update passes, each with weights of its own."""
    cycles: int
    """H_cycles: cycles of one outer step; only the last one carries gradients in training."""
    updates: int
    """L_cycles: updates of the lower state (or of the only one) in one cycle."""
    states: States = "hierarchical"
    """`none` is a feed-forward net: the blocks are passed once from the input embedding, at
    whatever depth; the second outer step changes nothing."""
    stacks: Stacks = "shared"
    """`shared` updates both states with the same blocks; `separate` has `blocks` for each."""
    gradient: Gradient = "cycle"
    """What carries gradients in training: the outer step's last cycle, or only the last update
    of each state in it (HRM's one-step gradient)."""
    expansion: float = 4.0
    heads: int = 8
    """Attention heads; `attention` only."""
    rotary: bool = True
    """Rotary position embedding; `attention` only."""
    frame: str | None = None
    """Largest grid, such as ``30x30``: a smaller one stands in its top left corner, with its
    cells at the positions that they have there. Without a frame a grid of any size counts its own
    cells. `attention` with `rotary` only."""
    tokens: int | None = None
    """Tokens of a grid; the `token` mixer's weights depend on it, the others take any number."""
    vocabulary: int = 0
    """Size of the token table; 0 for `units`, which embeds candidates instead."""
    constraint_kinds: int = 0
    """Number of projections shared by constraint families; `units` only."""
    damping: float = 0.05
    """λ: the share of the old state kept by each update."""
    noise: float = 0.01
    """β: standard deviation of the path noise in training (NI)."""
    initial: Initial = "random"
    """`random` draws each trajectory's state (RI); `fixed` uses one stored vector (TRM)."""
    q_outputs: int = 1
    """Outputs of the halting head; the first one is the halting logit."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ModelError(
                    f"{name} is {shown(value)}; it must be one of {', '.join(allowed)}"
                )
        for name in LIMITS:
            self._check_number(name)
        if not isinstance(self.rotary, bool):
            raise ModelError(f"rotary is {shown(self.rotary)}; it must be true or false")
        if type(self.task) is not str or not self.task:
            raise ModelError(f"task is {shown(self.task)}; it must be the name of a task")
        if self.mixer == "units":
            if self.constraint_kinds < 1:
                raise ModelError("the units mixer needs constraint_kinds of at least 1")
        elif self.vocabulary < 2:
            raise ModelError(f"the {self.mixer} mixer needs a vocabulary of at least 2")
        if self.mixer == "token" and not self.tokens:
            raise ModelError("the token mixer needs the number of tokens")
        if self.mixer == "attention" and self.hidden % (2 * self.heads):
            raise ModelError(f"hidden {self.hidden} must be a multiple of twice heads {self.heads}")
        self._check_frame()
        if self.stacks == "separate" and self.states != "hierarchical":
            raise ModelError(f"stacks is 'separate'; with states {self.states!r} there is only one")
        if self.states == "none":
            for name, needed in FEED_FORWARD.items():
                if getattr(self, name) != needed:
                    raise ModelError(
                        f"{name} is {shown(getattr(self, name))}; "
                        f"a net without states has {name} {needed}"
                    )

    def _check_frame(self) -> None:
        if self.frame is None:
            return
        if type(self.frame) is not str or not SIZE.fullmatch(self.frame):
            raise ModelError(f"frame is {shown(self.frame)}; it must read like 30x30")
        if self.mixer != "attention" or not self.rotary:
            raise ModelError(
                f"frame is {shown(self.frame)}; only the attention mixer with rotary has one"
            )

    def _check_number(self, name: str) -> None:
        value, (least, most) = getattr(self, name), LIMITS[name]
        if value is None and name == "tokens":
            return
        allowed, kind = (int, "whole number") if isinstance(least, int) else (int | float, "number")
        number = isinstance(value, allowed) and not isinstance(value, bool)
        if not number or not least <= value <= most:
            raise ModelError(
                f"{name} is {shown(value)}; it must be a {kind} from {least} to {most}"
            )

    def takes(self, size: str) -> bool:
        """Whether a grid of `size` is within the frame, where there is one."""
        return self.frame is None or fits([f"1x1-{self.frame}"], size)

    @property
    def layers_per_step(self) -> int:
        """Block passes of one outer step (DESIGN: reported as `layers` per iteration)."""
        upper = 1 if self.states == "hierarchical" else 0
        return self.cycles * (self.updates + upper) * self.blocks

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for cards and recipes; a field newer than some of them only where set."""
        values = asdict(self)
        if self.frame is None:
            del values["frame"]
        return values

    @staticmethod
    def from_dict(values: dict[str, Any]) -> OperatorConfig:
        """The configuration a card holds; unknown, missing or ill-typed fields: ModelError."""
        known = {field.name: field.default is MISSING for field in fields(OperatorConfig)}
        for name in values:
            if name not in known:
                raise ModelError(f"operator configuration: unknown field {shown(name)}")
        for name, required in known.items():
            if required and name not in values:
                raise ModelError(f"operator configuration: the field {name!r} is missing")
        return OperatorConfig(**values)
