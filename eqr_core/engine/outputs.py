"""What an operator says of its own states, beside the prediction."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from eqr_core.engine.slots import SlotPool
from eqr_core.model.operator import Operator


@torch.inference_mode()
def halting_outputs(operator: Operator, pool: SlotPool, slots: Iterable[int]) -> dict[int, float]:
    """Halting output (a logit, above 0: "right") of the state in each of `slots`, by slot.

    Each is computed by itself, so that its company has no part in it.
    """
    return {
        slot: float(operator.read(tuple(z[slot : slot + 1] for z in pool.state))[1][0, 0])
        for slot in slots
    }
