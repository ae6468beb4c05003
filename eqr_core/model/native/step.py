"""Outer steps of a `units` operator in native code, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import Linear
from eqr_core.model.mixers import UnitsBlock
from eqr_core.model.native.build import library
from eqr_core.model.native.kernels import Kernels
from eqr_core.model.native.layout import MULTIPLE
from eqr_core.model.operator import Operator, State


def supports(config: OperatorConfig, dtype: torch.dtype) -> bool:
    """Whether the kernels compute this operator in this dtype, given a machine that runs them."""
    return (
        dtype == torch.bfloat16
        and config.mixer == "units"
        and config.states == "single"
        and config.blocks == 1
        and config.gradient == "cycle"
        and config.hidden % MULTIPLE == 0
        and round(config.expansion * config.hidden) % MULTIPLE == 0
    )


def native_step(operator: Operator, dtype: torch.dtype) -> NativeStep | None:
    """The operator's outer step in native code; None where `operator.outer_step` must do."""
    if operator.embedding.device.type != "cpu" or not supports(operator.config, dtype):
        return None
    (block,), layout, loaded = operator.blocks, operator.task.layout, library()
    if loaded is None or layout is None or not isinstance(block, UnitsBlock):
        return None
    kernels = Kernels(loaded, layout, operator.config, len(block.own.weight))
    return NativeStep(kernels, block, operator.config.cycles, operator.config.updates)


class NativeStep:
    """`operator.outer_step` for a state, an embedding and noise in bfloat16 on the CPU.

    Inside an update sums are float32; the factors of products and the state between updates are
    bfloat16. A row's result does not depend on the other rows. The gradients are those of the
    operator (every maximum of a group gets the whole gradient) for the weights, the embedding
    and the state; they depend on the number of threads, by which sums are split, and on nothing
    else. A graph can be gone through backwards once.
    """

    def __init__(self, kernels: Kernels, block: UnitsBlock, cycles: int, updates: int) -> None:
        self._kernels = kernels
        self._block = block
        self._pooled = [layer for layer in block.pooled if isinstance(layer, Linear)]
        self._cycles = cycles
        self._updates = updates

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, state: State, e: Tensor, draws: Tensor | None = None, first: int = 0
    ) -> State:
        """One outer step of `state` ([batch, *state_shape],), with `e` of the same shape.

        In update i, counted through the cycles, row b takes the noise `draws[(first + b − i) mod
        len(draws)]`, already scaled, [any, *state_shape]. ModelError where a tensor does not fit.
        """
        (z,) = state
        pooled = torch.stack([layer.weight for layer in self._pooled])
        weights = (self._block.own.weight, self._block.out.weight, pooled)
        for cycle in range(self._cycles):
            offset = first - cycle * self._updates
            if cycle + 1 < self._cycles or not torch.is_grad_enabled():
                z, _ = self._kernels.forward(z, e, draws, offset, weights, keep=False)
            else:
                z = _Cycle.apply(self._kernels, z, e, draws, offset, *weights)  # type: ignore[no-untyped-call]
        return (z,)


class _Cycle(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        kernels: Kernels,
        z: Tensor,
        e: Tensor,
        draws: Tensor | None,
        first: int,
        *weights: Tensor,
    ) -> Tensor:
        own, out, pooled = weights
        end, ctx.inputs = kernels.forward(z, e, draws, first, (own, out, pooled), keep=True)
        ctx.kernels = kernels
        ctx.save_for_backward(*weights)
        return end

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[no-untyped-def]
        if ctx.inputs is None:
            raise RuntimeError("the inputs of a cycle serve one backward pass; run it again")
        own, out, pooled = ctx.saved_tensors
        inputs, ctx.inputs = ctx.inputs, None
        z, e, weights = ctx.kernels.backward(
            grad, inputs, (own, out, pooled), ctx.needs_input_grad[1]
        )
        return None, z, e, None, None, *weights
