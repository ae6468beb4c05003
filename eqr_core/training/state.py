"""The whole state of a run in one file, so that it goes on exactly where it stopped.

One safetensors file, replaced atomically; the plain values (step, seconds, recipe, data digests)
are JSON in its metadata.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eqr_core.errors import RecipeError


def save_state(path: Path, groups: dict[str, dict[str, Tensor]], values: dict[str, Any]) -> None:
    """Write tensors, grouped by who owns them, and JSON `values`; the old file stays until then."""
    tensors = {
        f"{group}/{name}": value.detach().contiguous().clone()
        for group, named in groups.items()
        for name, value in named.items()
    }
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"values": json.dumps(values)})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)  # noqa: PTH105 - atomic on one file system


def load_state(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """What `save_state` wrote. RecipeError when the file is not such a state."""
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["values"])
            groups: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RecipeError(f"{path}: not a training state: {error}") from None
    return groups, values


def generator_tensor(generator: torch.Generator) -> dict[str, Tensor]:
    """The generator's position, as a tensor."""
    return {"position": generator.get_state()}
