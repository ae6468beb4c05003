"""A trained operator in one of twice the width, to be trained further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from eqr_core.errors import ModelError
from eqr_core.model.card import Card

_POOLED = ".pooled."


def widened(weights: Mapping[str, Tensor], card: Card) -> tuple[dict[str, Tensor], Card]:
    """Weights and card of an operator twice as wide, for `save_checkpoint`.

    Two copies stand side by side and know of each other by the norm alone, so that from a state
    whose halves are equal it computes what the narrow one does. As halves start at different
    random states, they are two trajectories that training may teach to speak to each other
    (function-preserving growth: Chen et al. 2016, arXiv:1511.05641; theirs repeats units, which
    then have to be told apart by noise). ModelError unless the operator is of `units`.
    """
    config = card.operator
    if config.mixer != "units":
        raise ModelError(f"{card.name}: its mixer is {config.mixer}; only units can be widened")
    wide = {name: _wide(name, value, config.hidden) for name, value in weights.items()}
    made = Card(
        f"{card.name}-wide",
        card.task,
        replace(config, hidden=2 * config.hidden),
        card.sizes,
        license=card.license,
        description=f"{card.name} twice as wide (eqr models widen), not trained since.",
    )
    return wide, made


def _wide(name: str, value: Tensor, hidden: int) -> Tensor:
    if name == "q_head.bias":
        return value
    if name in ("embedding", "start"):
        return torch.cat([value, value], dim=-1)
    if name == "head.weight":
        return torch.cat([value, value], dim=-1) / 2
    # What reads means and maxima has a matrix for each.
    parts = value.split(hidden, dim=-1) if _POOLED in name or name == "q_head.weight" else (value,)
    if name == "q_head.weight":
        return torch.cat([half for part in parts for half in (part, part)], dim=-1) / 2
    return torch.cat([torch.block_diag(part, part) for part in parts], dim=-1)
