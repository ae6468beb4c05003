"""Draws that depend on (request seed, trajectory, outer step, draw) and on nothing else.

Philox is counter-based: its 128-bit key holds the seed and the trajectory, the upper half of its
counter the step and the draw, so no two streams can meet (Salmon et al. 2011). A torch generator
on the CPU would keep 32 bits of its seed only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from eqr_core.model.layers import truncated_normal
from eqr_core.model.operator import Operator, State


def initial_state(
    seed: int, trajectory: int, shape: Sequence[int], components: int
) -> list[Tensor]:
    """Random initial state (the paper's RI): `components` float32 tensors of `shape`."""
    return [
        truncated_normal(
            torch.from_numpy(_stream(seed, trajectory, 0, i).random(tuple(shape), np.float32))
        )
        for i in range(components)
    ]


def start_states(operator: Operator, starts: Sequence[tuple[int, int]]) -> State:
    """States in which the trajectories `starts`, (seed, trajectory) each, begin.

    Tensors [len(starts), *state_shape]: random, or the operator's own where those are fixed.
    """
    if operator.config.initial == "fixed":
        return operator.fixed_state(len(starts))
    shape, count = operator.state_shape, operator.state_count
    rows = [initial_state(seed, trajectory, shape, count) for seed, trajectory in starts]
    return tuple(torch.stack(component) for component in zip(*rows, strict=True))


def path_noise(
    seed: int, trajectory: int, step: int, draw: int, shape: Sequence[int], scale: float
) -> Tensor:
    """Path noise (the paper's NI) of one update in outer step `step` ≥ 1, float32 of `shape`."""
    stream = _stream(seed, trajectory, step, draw)
    return scale * torch.from_numpy(stream.standard_normal(tuple(shape), np.float32))


def _stream(seed: int, trajectory: int, step: int, draw: int) -> np.random.Generator:
    key = np.array([seed, trajectory], dtype=np.uint64)
    counter = np.array([0, 0, draw, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))
