"""Checkpoints of our own: a folder with model.safetensors and card.json.

A save is atomic although it writes two files, because the digest in the card decides which
weights count: new weights are first written beside the old ones under a name that holds their
digest, then the card is replaced in one step, then the weights are renamed. A reader who finds
weights that the card does not mean looks for the pending ones, so that a crash at any moment
leaves either the old checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

import eqr_core.zoo
from eqr_core.errors import CheckpointError, ModelError
from eqr_core.model.card import Card
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.model.sizes import named
from eqr_core.tasks import task_at
from eqr_core.tasks.base import Task

WEIGHTS = "model.safetensors"
CARD = "card.json"
PENDING = ".pending-{}.safetensors"
READ_ATTEMPTS = 3
"""A save may pass between reading the card and reading the weights."""


def save_checkpoint(folder: Path, weights: dict[str, Tensor], card: Card) -> Card:
    """Write weights (an `Operator.state_dict()`, stored as float32) and card, atomically.

    Returns the card with its digest and number of parameters. CheckpointError where weights
    and configuration do not agree or the folder cannot be written.
    """
    plain = {
        name: value.detach().to("cpu", torch.float32).contiguous().clone()
        for name, value in weights.items()
    }
    parameters = _check_weights(plain, card)
    data = safetensors.save(plain)
    digest = hashlib.sha256(data).hexdigest()
    card = replace(card, digest=digest, parameters=parameters)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pending = _pending(folder, digest)
        _write(pending, data)
        _replace_card(folder, card)
        pending.replace(folder / WEIGHTS)
        for stray in folder.glob(PENDING.format("*")):  # of a save that did not get so far
            stray.unlink()
        _sync(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from None
    return card


def check_vacant(folder: Path) -> None:
    """CheckpointError where `folder` holds a checkpoint already."""
    if (folder / CARD).exists():
        raise CheckpointError(f"{folder}: there is a checkpoint already; name another folder")


def update_card(folder: Path, card: Card) -> None:
    """Replace the card of the same weights, atomically; CheckpointError if it means others."""
    present = read_card(folder).digest
    if card.digest != present:
        raise CheckpointError(
            f"{folder}: the new card means the weights {card.digest[:12] or 'of no digest'}, "
            f"the folder holds {present[:12]}"
        )
    try:
        _replace_card(folder, card)
        _sync(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from None


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], Card]:
    """Weights (float32, on the CPU) and card of a checkpoint.

    CheckpointError where a file is missing, the weights are not those of the card's digest, or
    they do not fit its configuration.
    """
    for _ in range(READ_ATTEMPTS):
        card = read_card(folder)
        found = {path: _read(path) for path in (folder / WEIGHTS, _pending(folder, card.digest))}
        for data in found.values():
            if data is not None and hashlib.sha256(data).hexdigest() == card.digest:
                return _parse(folder, data, card), card
    if all(data is None for data in found.values()):
        raise CheckpointError(f"{folder}: {CARD} is there, {WEIGHTS} is missing")
    raise CheckpointError(
        f"{folder / WEIGHTS}: the digest is not the card's {card.digest[:12]}…; "
        "the file is damaged or belongs to another card"
    )


def read_card(folder: Path) -> Card:
    """The card of a checkpoint folder, without its weights; CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    try:
        return Card.from_json((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: {CARD} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{folder / CARD}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{folder / CARD}: not UTF-8 text") from None
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CARD}: {error}") from None


def zoo_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.parent.name for path in _zoo().glob(f"*/{CARD}"))


def find_checkpoint(name_or_path: str) -> Path:
    """Folder of a zoo checkpoint, or the folder itself; ModelError lists what there is."""
    if name_or_path in zoo_names():
        return _zoo() / name_or_path
    path = Path(name_or_path)
    if name_or_path and path.is_dir():
        return path
    raise ModelError(
        f"unknown model {name_or_path[:200]!r}: neither a folder nor one of "
        f"{', '.join(zoo_names()) or 'the shipped models (there are none)'}"
    )


def check_sizes(card: Card) -> None:
    """ModelError unless the card's operator fits its task at each size that the card names."""
    operator = Operator.blueprint(card.operator)
    for size in named(card.sizes):
        rows, columns = map(int, size.split("x"))
        try:
            operator.for_task(task_at(card.task, rows, columns))
        except ModelError as error:
            raise ModelError(f"{card.name}: {error}") from None


def build_operator(weights: dict[str, Tensor], card: Card, task: Task) -> Operator:
    """The operator of a checkpoint for one task size, for inference.

    It shares the tensors of `weights`. ModelError where the task or its size does not fit.
    """
    _check_weights(weights, card)
    return assemble(weights, card.operator, task)


def assemble(weights: dict[str, Tensor], config: OperatorConfig, task: Task) -> Operator:
    """An operator for inference from weights known to fit its configuration."""
    operator = Operator.blueprint(config)
    operator.load_state_dict({n: value.detach() for n, value in weights.items()}, assign=True)
    return operator.for_task(task).eval().requires_grad_(False)


def check_shapes(shapes: Mapping[str, Sequence[int]], config: OperatorConfig) -> int:
    """Number of trained values; CheckpointError names the first tensor that does not fit."""
    blueprint = Operator.blueprint(config)
    expected = {name: tuple(value.shape) for name, value in blueprint.state_dict().items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if name not in shapes:
            raise CheckpointError(f"the tensor {name} is missing")
        if name not in expected:
            raise CheckpointError(f"the configuration has no tensor {name[:100]}")
        if tuple(shapes[name]) != expected[name]:
            raise CheckpointError(
                f"the tensor {name} is {list(shapes[name])}; "
                f"the configuration makes it {list(expected[name])}"
            )
    return blueprint.parameter_count


def _check_weights(weights: dict[str, Tensor], card: Card) -> int:
    try:
        parameters = check_shapes({n: value.shape for n, value in weights.items()}, card.operator)
        for name, value in weights.items():
            if value.dtype != torch.float32:
                raise CheckpointError(f"the tensor {name} is {value.dtype}, not torch.float32")
    except CheckpointError as error:
        raise CheckpointError(f"{card.name}: {error}") from None
    return parameters


def _parse(folder: Path, data: bytes, card: Card) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = safetensors.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error}") from None
    parameters = _check_weights(weights, card)
    if parameters != card.parameters:
        raise CheckpointError(
            f"{folder / CARD}: parameters is {card.parameters}; the operator has {parameters}"
        )
    return weights


def _zoo() -> Path:
    return Path(eqr_core.zoo.__file__).parent


def _pending(folder: Path, digest: str) -> Path:
    return folder / PENDING.format(digest[:16])


def _replace_card(folder: Path, card: Card) -> None:
    pending = folder / f".{CARD}.new"
    _write(pending, card.to_json().encode())
    pending.replace(folder / CARD)
    _sync(folder)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
