"""An outer step compiled by torch, or plain where compiling fails."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from eqr_core.model.operator import Noise, Operator, State

log = logging.getLogger(__name__)


class CompiledStep:
    """`operator.outer_step`, compiled when it is first called.

    Where that fails (no C++ compiler, a full disk, a fault of torch's) one line of the log says why
    and from then on the plain step computes.
    """

    def __init__(self, operator: Operator) -> None:
        self._plain = operator.outer_step
        self._step = torch.compile(operator.outer_step, dynamic=False)

    def __call__(self, state: State, e: Tensor, noise: Noise | None = None) -> State:
        """As `Operator.outer_step`."""
        if self._step != self._plain:
            try:
                return self._step(state, e, noise)
            except Exception as error:  # whatever torch's compilers raise; what is ours comes again
                reason = (str(error).strip().splitlines() or [""])[0]
                log.warning(
                    "torch could not compile the outer step (%s: %.200s); solving goes on without",
                    type(error).__name__,
                    reason,
                )
                self._step = self._plain
        return self._plain(state, e, noise)
