"""The card of a checkpoint: what its weights are, for which task, and how good."""

from __future__ import annotations

import json
import math
import re
import reprlib
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from eqr_core.errors import CheckpointError, ModelError
from eqr_core.model.config import OperatorConfig
from eqr_core.model.sizes import is_size

FORMAT_VERSION = 1
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Card:
    """Everything about a checkpoint but its weights; plain values throughout (DESIGN section 5)."""

    name: str
    task: str
    operator: OperatorConfig
    sizes: tuple[str, ...]
    """Grid sizes it was trained or measured on, for instance ``9x9``; ``5x5-60x60`` is a range."""
    digest: str = ""
    """SHA-256 of model.safetensors, in hex; filled in by `save_checkpoint`."""
    parameters: int = 0
    """Number of trained values; filled in by `save_checkpoint`."""
    tolerance: float | None = None
    """Score at which a trajectory counts as converged; None where never calibrated."""
    calibration: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    results: tuple[dict[str, Any], ...] = ()
    license: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        values = vars(self)
        for name in ("name", "task", "digest", "license", "description"):
            self._require(name, isinstance(values[name], str), "text")
        for name in ("calibration", "training"):
            self._require(name, isinstance(values[name], dict), "an object")
        for name, kind in (("sizes", str), ("results", dict)):
            rows = values[name]
            fits = isinstance(rows, tuple) and all(isinstance(row, kind) for row in rows)
            self._require(name, fits, f"a list of {'texts' if kind is str else 'objects'}")
        self._require("operator", isinstance(values["operator"], OperatorConfig), "an object")
        self._require("name", bool(self.name), "text that is not empty")
        self._require("task", self.task == self.operator.task, "the operator's task")
        sized = bool(self.sizes) and all(map(is_size, self.sizes))
        self._require("sizes", sized, 'sizes such as ["9x9"]')
        counted = type(self.parameters) is int and self.parameters >= 0
        self._require("parameters", counted, "a whole number")
        calibrated = type(self.tolerance) in (int, float) and 0 < values["tolerance"] < math.inf
        self._require("tolerance", calibrated or self.tolerance is None, "null or above 0")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            value = reprlib.repr(getattr(self, name))
            raise CheckpointError(f"card: {name} is {value}; it must be {what}")

    def to_json(self) -> str:
        """The card as it stands in card.json; CheckpointError where a value is not plain."""
        operator = self.operator.to_dict()
        values = {"format_version": FORMAT_VERSION, **asdict(self), "operator": operator}
        try:
            return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"card: {error}") from None

    @staticmethod
    def from_json(text: str) -> Card:
        """The card that `text` holds.

        CheckpointError names an unknown, missing or ill-typed field, or another format version.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"card: no JSON ({error})") from None
        if not isinstance(values, dict):
            raise CheckpointError("card: it must be a JSON object")
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"card: format_version is {reprlib.repr(version)}; only {FORMAT_VERSION} is known"
            )
        known = [f.name for f in fields(Card)]
        for name in values:
            if name not in known:
                raise CheckpointError(f"card: unknown field {reprlib.repr(name)}")
        for name in known:
            if name not in values:
                raise CheckpointError(f"card: the field {name!r} is missing")
        return Card(**_typed(values))


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    for name in ("sizes", "results"):
        if isinstance(values[name], list):
            values[name] = tuple(values[name])
    if not isinstance(values["digest"], str) or not DIGEST.fullmatch(values["digest"]):
        raise CheckpointError(
            f"card: digest is {reprlib.repr(values['digest'])}; it must be a SHA-256"
        )
    if not isinstance(values["operator"], dict):
        raise CheckpointError(
            f"card: operator is {reprlib.repr(values['operator'])}; not an object"
        )
    try:
        values["operator"] = OperatorConfig.from_dict(values["operator"])
    except ModelError as error:
        raise CheckpointError(f"card: {error}") from None
    return values
