"""A trained operator with several sets of its blocks, to be trained further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.card import Card


def untied(weights: Mapping[str, Tensor], card: Card, sets: int) -> tuple[dict[str, Tensor], Card]:
    """Weights and card of an operator with `sets` equal sets of blocks, for `save_checkpoint`.

    It computes what the operator does; training then lets the updates of a cycle differ, at the
    same work (see `OperatorConfig.sets`). ModelError where it has several sets already, or its
    updates cannot take so many in turn.
    """
    config = card.operator
    if config.sets > 1:
        raise ModelError(f"{card.name}: it has {config.sets} sets of blocks already")
    copies: dict[str, Tensor] = {}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        if part != "blocks":
            copies[name] = value
            continue
        index, _, rest = rest.partition(".")
        for first in range(0, sets * config.blocks, config.blocks):
            # Copies, as a safetensors file holds no tensor under two names.
            copies[f"blocks.{first + int(index)}.{rest}"] = value.clone()
    made = Card(
        f"{card.name}-untied",
        card.task,
        replace(config, sets=sets),
        card.sizes,
        license=card.license,
        description=f"{card.name} with {sets} sets of blocks (eqr models untie), untrained since.",
    )
    return copies, made
