"""The whole state of a run, so that it goes on exactly where it stopped.

`state.json` names the safetensors files that belong together and holds the plain values (step,
seconds, recipe, data digests). It is replaced atomically, after the files it names are on disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eqr_core.errors import RecipeError

FILE_BYTES = 16 * 2**20
"""Most that one file holds, but for a single tensor larger than that."""

INDEX = "state.json"
Groups = dict[str, dict[str, Tensor]]


def save_state(folder: Path, groups: Groups, values: dict[str, Any]) -> None:
    """Write tensors, grouped by owner, and JSON `values`; the old state stays until then."""
    tensors = {
        f"{group}/{name}": value.detach().cpu().contiguous().clone()
        for group, named in groups.items()
        for name, value in named.items()
    }
    # What a killed save left behind is not the state that is in force: the index says which is.
    in_force = _named(folder)
    turn = "b" if any(name.startswith("state-a") for name in in_force) else "a"
    files: list[str] = []
    for part in _parts(tensors):
        files.append(f"state-{turn}{len(files)}.safetensors")
        save_file(part, folder / files[-1])
        _sync(folder / files[-1])
    temporary = folder / "state.tmp"
    temporary.write_text(json.dumps({"files": files, "values": values}), encoding="utf-8")
    _sync(temporary)
    os.replace(temporary, folder / INDEX)  # noqa: PTH105 - atomic on one file system
    _sync_folder(folder)
    for path in folder.glob("state-*.safetensors"):
        if path.name not in files:
            path.unlink()


def load_state(folder: Path) -> tuple[Groups, dict[str, Any]] | None:
    """What `save_state` wrote, None where there is nothing. RecipeError where it is broken."""
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        groups: Groups = {}
        for file_name in index["files"]:
            with safe_open(folder / Path(file_name).name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    group, _, name = key.partition("/")
                    groups.setdefault(group, {})[name] = file.get_tensor(key)
        return groups, dict(index["values"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path}: not a training state: {error}") from None


def generator_tensor(generator: torch.Generator) -> dict[str, Tensor]:
    """The generator's position, as a tensor."""
    return {"position": generator.get_state()}


def byte_count(named: dict[str, Tensor]) -> int:
    """Bytes that these tensors hold."""
    return sum(value.nbytes for value in named.values())


def _parts(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if part and byte_count(part) + value.nbytes > FILE_BYTES:
            yield part
            part = {}
        part[name] = value
    yield part


def _named(folder: Path) -> list[str]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [str(name) for name in index["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
