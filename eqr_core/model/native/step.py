"""Outer steps of a `units` or `grid` operator in native code, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import Linear
from eqr_core.model.mixers import GridBlock, UnitsBlock
from eqr_core.model.native.build import library
from eqr_core.model.native.kernels import Embedding, Kernels, Weights, plain
from eqr_core.model.native.layout import MOST_KINDS, MULTIPLE, inner_width, operator_layout
from eqr_core.model.operator import Operator, State


def supports(config: OperatorConfig, dtype: torch.dtype) -> bool:
    """Whether the kernels compute this operator in this dtype, given a machine that runs them."""
    return dtype == torch.bfloat16 and config.gradient == "cycle" and fits(config)


def fits(config: OperatorConfig) -> bool:
    """Whether the kernels compute this operator's updates."""
    return (
        config.mixer in ("units", "grid")
        and config.states == "single"
        and (config.mixer == "grid" or config.blocks == 1)
        and config.hidden % MULTIPLE == 0
        and inner_width(config) % MULTIPLE == 0
        and (config.mixer == "units" or config.vocabulary <= MOST_KINDS)
    )


def native_step(operator: Operator, dtype: torch.dtype) -> NativeStep | None:
    """The operator's outer step in native code; None where `operator.outer_step` must do."""
    config = operator.config
    if operator.embedding.device.type != "cpu" or not supports(config, dtype):
        return None
    loaded = library()
    if loaded is None:
        return None
    layout = operator_layout(operator, config.updates, loaded.eqr_tiles())
    return NativeStep(Kernels(loaded, layout), operator) if layout else None


class NativeStep:
    """Outer steps of an operator in bfloat16 on the CPU.

    Sums inside an update are float32; the factors of products and the state between updates are
    bfloat16. A row's result does not depend on the other rows. In update i, counted through the
    cycles, row b takes the noise `draws[(first + b − i) mod len(draws)]`, already scaled, [any,
    *state_shape]. ModelError where a tensor does not fit.
    """

    def __init__(self, kernels: Kernels, operator: Operator) -> None:
        self._kernels = kernels
        self._operator = operator
        self._kinds = operator.candidate_kinds if operator.config.mixer == "units" else Tensor.long

    def __call__(
        self, state: State, e: Tensor, draws: Tensor | None = None, first: int = 0
    ) -> State:
        """One outer step of `state` ([batch, *state_shape],), with `e` alike; no gradient."""
        return (self._cycles(state[0], Embedding(e), draws, first, self._operator.config.cycles),)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def train(
        self, state: State, tokens: Tensor, draws: Tensor | None = None, first: int = 0
    ) -> State:
        """One outer step of `state` with the embedding of `tokens` [batch, tokens].

        The gradients are those of the operator (every maximum of a group gets the whole gradient)
        for the block's weights, the embedding and the state, through the last cycle. They depend
        on the number of threads, by which sums are split, and on nothing else. A graph can be
        gone through backwards once.
        """
        config = self._operator.config
        kinds, table = self._kinds(tokens), self._operator.table
        free = config.cycles - 1
        with torch.no_grad():
            z = self._cycles(state[0], Embedding(table.bfloat16(), kinds), draws, first, free)
        end: Tensor = _Cycle.apply(  # type: ignore[no-untyped-call]
            self._kernels, z, kinds, draws, first - free * config.updates, table, *self._weights()
        )
        return (end,)

    def _cycles(
        self, z: Tensor, e: Embedding, draws: Tensor | None, first: int, count: int
    ) -> Tensor:
        weights = plain(self._weights())
        for cycle in range(count):
            offset = first - cycle * self._operator.config.updates
            z, _ = self._kernels.forward(z, e, draws, offset, weights, keep=False)
        return z

    def _weights(self) -> Weights:
        return block_weights(list(self._operator.blocks))


def block_weights(blocks: Sequence[nn.Module]) -> Weights:
    """The weights of an operator's blocks in the order that `Weights` names."""
    units = [block for block in blocks if isinstance(block, UnitsBlock)]
    if units:
        (block,) = units
        layers = [layer for layer in block.pooled if isinstance(layer, Linear)]
        return block.own.weight, block.out.weight, torch.stack([one.weight for one in layers])
    grids = [block for block in blocks if isinstance(block, GridBlock)]
    near, out = ([getattr(block, name).weight for block in grids] for name in ("near", "out"))
    return torch.stack(near), torch.stack(out)


class _Cycle(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        kernels: Kernels,
        z: Tensor,
        kinds: Tensor,
        draws: Tensor | None,
        first: int,
        table: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        flat = plain(weights)
        e = Embedding(table.bfloat16(), kinds)
        end, ctx.inputs = kernels.forward(z, e, draws, first, flat, keep=True)
        ctx.kernels = kernels
        ctx.save_for_backward(kinds, *flat)
        return end

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[no-untyped-def]
        if ctx.inputs is None:
            raise RuntimeError("the inputs of a cycle serve one backward pass; run it again")
        kinds, *weights = ctx.saved_tensors
        inputs, ctx.inputs = ctx.inputs, None
        z, table, gradients = ctx.kernels.backward(
            grad, kinds, inputs, tuple(weights), ctx.needs_input_grad[1]
        )
        return None, z, None, None, None, table, *gradients
