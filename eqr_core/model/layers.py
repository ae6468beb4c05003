"""Parts that every mixer shares: norm, gated feed-forward layer, rotary embedding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0
TRUNCATION = 2.0


def rms_norm(x: Tensor) -> Tensor:
    """x / RMS(x) over the last axis, without weights, computed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPS)).to(x.dtype)


def truncated_normal(uniform: Tensor, std: float = 1.0) -> Tensor:
    """Map U(0, 1) draws to a normal cut at two sigma and rescaled to standard deviation `std`.

    The draws may come from any generator, so the state of a trajectory can depend on its seed
    alone. Same shape and dtype as `uniform`.
    """
    edge = math.erf(TRUNCATION / math.sqrt(2))
    density = math.exp(-(TRUNCATION**2) / 2) / math.sqrt(2 * math.pi)
    scale = std / math.sqrt(1 - 2 * TRUNCATION * density / edge)
    signed = (2 * uniform - 1) * edge
    return (math.sqrt(2) * scale * torch.erfinv(signed)).clamp(
        -TRUNCATION * scale, TRUNCATION * scale
    )


class Linear(nn.Module):
    """x · Wᵀ without bias; W starts truncated normal, std 1/√fan_in. Computes in x's dtype."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal(torch.rand(outputs, inputs), inputs**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class SwiGLU(nn.Module):
    """W_down(silu(gate) · up), [gate, up] = W_gate_up x, over the last axis."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        inner = inner_width(width, expansion)
        self.gate_up = Linear(width, 2 * inner)
        self.down = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        mixed: Tensor = self.down(F.silu(gate) * up)
        return mixed


def inner_width(width: int, expansion: float) -> int:
    """round(2/3 · expansion · width) rounded up to a multiple of 256."""
    return -(-round(expansion * width * 2 / 3) // 256) * 256


def rotary_tables(positions: Tensor, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables, float32 [tokens, head_width], half-split layout, base 10000.

    `positions` [tokens] are whole numbers from 0, of any dtype.
    """
    frequency = ROTARY_BASE ** (
        -torch.arange(0, head_width, 2, dtype=torch.float32, device=positions.device) / head_width
    )
    angle = torch.outer(positions.float(), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [..., tokens, head_width] by its position."""
    low, high = x.chunk(2, dim=-1)
    turned = torch.cat([-high, low], dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)
