"""Blocks of the operator. They differ in how positions see each other: the mixer.

`token` and `attention` are the paper's and know nothing of the task. `units` pools over the
task's constraints: it knows which candidates exclude each other and nothing of the grid's size.
`grid` convolves: it knows which cells are neighbours, and nothing of the size either.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqr_core.model.config import OperatorConfig
from eqr_core.model.layers import Linear, SwiGLU, rms_norm, rotary_tables, rotate
from eqr_core.model.sizes import sides
from eqr_core.tasks.base import ConstraintLayout


class TokenBlock(nn.Module):
    """Post-norm block with a SwiGLU over the token axis. x [batch, tokens, hidden]."""

    def __init__(self, config: OperatorConfig) -> None:
        super().__init__()
        assert config.tokens is not None  # narrows the type; OperatorConfig checked it
        self.mix = SwiGLU(config.tokens, config.expansion)
        self.mlp = SwiGLU(config.hidden, config.expansion)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(1, 2)
        x = rms_norm(turned + self.mix(turned)).transpose(1, 2)
        return rms_norm(x + self.mlp(x))


class SelfAttention(nn.Module):
    """Bidirectional attention, optionally with rotary embedding. x [batch, tokens, hidden].

    With a frame, a grid of fewer `columns` stands in the frame's top left corner, and each of its
    cells has the position that it has there. Frame cells outside the grid are left out, not
    masked: no other part of the operator looks beyond one cell, so the result is the same.
    """

    def __init__(self, hidden: int, heads: int, rotary: bool, frame: str | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.rotary = rotary
        self.frame_columns = sides(frame)[1] if frame else None
        self.qkv = Linear(hidden, 3 * hidden)
        self.out = Linear(hidden, hidden)

    def forward(self, x: Tensor, columns: int | None = None) -> Tensor:
        batch, tokens, hidden = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, hidden // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if self.rotary:
            positions = torch.arange(tokens, device=x.device)
            if columns and self.frame_columns:
                positions = positions + positions // columns * (self.frame_columns - columns)
            cos, sin = rotary_tables(positions, hidden // self.heads)
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, hidden))
        return joined


class AttentionBlock(nn.Module):
    """Post-norm block with self-attention. x [batch, tokens, hidden]."""

    def __init__(self, config: OperatorConfig) -> None:
        super().__init__()
        self.mix = SelfAttention(config.hidden, config.heads, config.rotary, config.frame)
        self.mlp = SwiGLU(config.hidden, config.expansion)

    def forward(self, x: Tensor, columns: int | None = None) -> Tensor:
        x = rms_norm(x + self.mix(x, columns))
        return rms_norm(x + self.mlp(x))


class _MaxPool(torch.autograd.Function):
    """amax whose gradient goes to every maximum whole: ties are rare, counting them is dear."""

    @staticmethod
    def forward(ctx, x: Tensor, dims: tuple[int, ...]) -> Tensor:  # type: ignore[no-untyped-def]
        highest = x.amax(dims, keepdim=True)
        ctx.save_for_backward(x, highest)
        return highest

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        x, highest = ctx.saved_tensors
        return (x == highest) * grad, None


class UnitsBlock(nn.Module):
    """Pool each constraint's candidates, project, broadcast back. x [batch, *axes, hidden].

    h = SiLU(W_z x + Σ_k W_k [mean_k x, max_k x]); x ← RMS(x + W_o h), k over the task's
    constraint families. Weights depend neither on the grid's size nor on the order of its
    rows, columns, bands, stacks or digits.
    """

    def __init__(self, config: OperatorConfig) -> None:
        super().__init__()
        hidden = config.hidden
        inner = round(config.expansion * hidden)
        self.own = Linear(hidden, inner)
        self.pooled = nn.ModuleList(
            Linear(2 * hidden, inner) for _ in range(config.constraint_kinds)
        )
        self.out = Linear(inner, hidden)

    def forward(self, x: Tensor, layout: ConstraintLayout) -> Tensor:
        h = self.own(x)
        for family, kind in zip(layout.families, layout.weights, strict=True):
            dims = tuple(axis + 1 for axis in family)
            highest = _MaxPool.apply(x, dims)  # type: ignore[no-untyped-call]
            pooled = torch.cat([x.mean(dims, keepdim=True), highest], dim=-1)
            h = h + self.pooled[kind](pooled)
        return rms_norm(x + self.out(F.silu(h)))


class GridBlock(nn.Module):
    """A pair of convolutions: h = SiLU(conv3×3 x); x ← RMS(x + conv1×1 h).

    x [batch, rows, columns, hidden]; beyond the edge stand zeros. `near` is the 3×3 kernel as a
    matrix: a row of it goes over a cell and its 8 neighbours, row-major, `hidden` values each.
    """

    def __init__(self, config: OperatorConfig) -> None:
        super().__init__()
        inner = round(config.expansion * config.hidden)
        self.near = Linear(9 * config.hidden, inner)
        self.out = Linear(inner, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        # As it stands in memory, the matrix is a kernel with its channels last.
        kernel = self.near.weight.to(x.dtype).view(-1, 3, 3, x.shape[-1]).permute(0, 3, 1, 2)
        h = F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1)
        return rms_norm(x + self.out(F.silu(h)))
