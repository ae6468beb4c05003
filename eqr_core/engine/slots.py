"""The preallocated tensors of all slots of one (checkpoint, task size)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eqr_core.model.operator import Operator, State


class SlotPool:
    """State and input embedding of `slots` trajectories, float32 [slots, *state_shape] each.

    They are on the operator's device. A row's content is undefined until it is written. Memory that
    no row has used yet is not touched, and low rows are used first, so an idle pool costs little.
    """

    def __init__(self, operator: Operator, slots: int) -> None:
        shape = (slots, *operator.state_shape)
        self.embedding = torch.empty(shape, device=operator.device)
        self.state: State = tuple(
            torch.empty_like(self.embedding) for _ in range(operator.state_count)
        )

    def write(self, slot: int, state: Sequence[Tensor], embedding: Tensor) -> None:
        """Fill one row; `state` tensors and `embedding` are [*state_shape]."""
        for rows, row in zip(self.state, state, strict=True):
            rows[slot] = row
        self.embedding[slot] = embedding

    def park(self, slot: int) -> State:
        """A copy of one row's state, to be written to another row later."""
        return tuple(rows[slot].clone() for rows in self.state)

    def gather(self, slots: Tensor) -> tuple[State, Tensor]:
        """Copies of the state and embedding of the rows `slots` (int64)."""
        return tuple(rows[slots] for rows in self.state), self.embedding[slots]

    def scatter(self, slots: Tensor, state: State) -> None:
        """Write new states to the rows `slots`; all other rows stay as they are."""
        for rows, new in zip(self.state, state, strict=True):
            rows[slots] = new
