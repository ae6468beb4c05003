"""One fixture folder, and what comes of comparing its tensors with ours."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from eqr_core.errors import CheckpointError

SCORE_TOLERANCE = 1e-6
EXACT = 0.0


@dataclass(frozen=True)
class Comparison:
    """One row of the parity table. `error` is the largest absolute one, NaN where none is."""

    fixture: str
    name: str
    error: float
    tolerance: float
    ok: bool
    note: str = ""


def failed(fixture: str, name: str, note: str) -> Comparison:
    """A row for what could not be compared."""
    return Comparison(fixture, name, math.nan, math.nan, False, note)


def compare(
    fixture: str,
    name: str,
    ours: Tensor | float | Sequence[float],
    theirs: Tensor | float | Sequence[float],
    tolerance: float,
) -> Comparison:
    """Compare two tensors or numbers of any dtype, in float64."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, theirs))
    if a.shape != b.shape:
        return failed(fixture, name, f"shape {list(a.shape)}, not {list(b.shape)}")
    error = (a - b).abs().max().item() if a.numel() else 0.0
    return Comparison(fixture, name, error, tolerance, error <= tolerance)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; CheckpointError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: it must be a JSON object")
    return values


class Fixture:
    """A folder of config.json and vectors.safetensors, and the comparisons made with it.

    It remembers which tensors were used, so that none is passed over in silence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / "config.json")
        try:
            self.vectors: dict[str, Tensor] = safetensors.load_file(folder / "vectors.safetensors")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / 'vectors.safetensors'}: {error}") from None
        self.comparisons: list[Comparison] = []
        self._used: set[str] = set()

    def value(self, name: str) -> Any:
        """A value of config.json; CheckpointError where it is missing."""
        if name not in self.config:
            raise CheckpointError(f"{self.folder / 'config.json'}: {name} is missing")
        return self.config[name]

    def take(self, name: str) -> Tensor:
        """A tensor to compute with, bfloat16 as float32; CheckpointError where it is missing."""
        if name not in self.vectors:
            raise CheckpointError(f"the tensor {name} is missing")
        self._used.add(name)
        value = self.vectors[name]
        return value.float() if value.dtype == torch.bfloat16 else value

    def compare(
        self, name: str, ours: Tensor | Sequence[float], tolerance: float, first: int | None = None
    ) -> None:
        """Compare with the tensor `name`, or with its first entries along axis 1."""
        if name not in self.vectors:
            self.comparisons.append(failed(self.folder.name, name, "the tensor is missing"))
            return
        theirs, shown = self.take(name), name
        if first is not None and first < theirs.shape[1]:
            theirs, shown = theirs[:, :first], f"{name}[:, :{first}]"
        self.comparisons.append(compare(self.folder.name, shown, ours, theirs, tolerance))

    def compare_value(
        self,
        name: str,
        ours: float | Sequence[float],
        theirs: float | Sequence[float],
        tolerance: float = EXACT,
    ) -> None:
        """Compare numbers that are no tensor of the file."""
        self.comparisons.append(compare(self.folder.name, name, ours, theirs, tolerance))

    def finish(self) -> list[Comparison]:
        """All comparisons; a tensor that nothing was compared with counts as a failure."""
        unknown = sorted(self.vectors.keys() - self._used)
        rest = [failed(self.folder.name, name, "not a known tensor") for name in unknown]
        return self.comparisons + rest
