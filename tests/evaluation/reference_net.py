"""The reference's function once more, in plain float64 tensors and sharing no code with ours.

It follows the description that comes with the parity fixtures. `twist` makes it wrong in one
named way, so that tests can show that parity notices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

TWISTS = (
    "damping after injection",
    "undamped",
    "interleaved rotary",
    "up before gate",
    "norm over channels",
    "input into both states",
    "upper state first",
    "bfloat16 weights",
    "halting on the last token",
    "keys before queries",
)


def multiple_of_256(width: int, expansion: float) -> int:
    least = round(expansion * width * 2 / 3)
    return next(n for n in range(256, 10**7, 256) if n >= least)


@dataclass
class Net:
    """One network: sizes, weights by the reference's inner names, float64."""

    kind: str  # eqr or trm
    mlp_t: bool
    tokens: int
    vocabulary: int
    hidden: int
    heads: int
    layers: int
    h_cycles: int
    l_cycles: int
    lambda_: float = 0.95
    rope: bool = True
    expansion: float = 4
    gain: float = 0.5
    twist: str = ""
    weights: dict[str, Tensor] = field(default_factory=dict)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        d, n = self.hidden, self.tokens
        shapes: dict[str, tuple[int, ...]] = {
            "embed_tokens.embedding_weight": (self.vocabulary, d),
            "lm_head.weight": (self.vocabulary, d),
            "q_head.weight": (2, d),
            "q_head.bias": (2,),
        }
        for i in range(self.layers):
            layer = f"L_level.layers.{i}."
            if self.mlp_t:
                wide = multiple_of_256(n, self.expansion)
                shapes[layer + "mlp_t.gate_up_proj.weight"] = (2 * wide, n)
                shapes[layer + "mlp_t.down_proj.weight"] = (n, wide)
            else:
                shapes[layer + "self_attn.qkv_proj.weight"] = (3 * d, d)
                shapes[layer + "self_attn.o_proj.weight"] = (d, d)
            wide = multiple_of_256(d, self.expansion)
            shapes[layer + "mlp.gate_up_proj.weight"] = (2 * wide, d)
            shapes[layer + "mlp.down_proj.weight"] = (d, wide)
        return shapes

    def draw(self, generator: torch.Generator) -> None:
        """Random weights, exact in float32."""
        for name, shape in self.shapes().items():
            std = self.gain / math.sqrt(shape[-1])
            value = torch.randn(shape, generator=generator, dtype=torch.float64) * std
            self.weights[name] = value.float().double()
        if self.kind == "trm":
            for name in ("H_init", "L_init"):
                value = torch.randn(self.hidden, generator=generator, dtype=torch.float64)
                self.weights[name] = value.float().double()

    def weight(self, name: str) -> Tensor:
        value = self.weights[name]
        if self.twist == "bfloat16 weights":
            return value.bfloat16().double()
        return value

    @staticmethod
    def norm(v: Tensor) -> Tensor:
        return v / (v.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def swiglu(self, name: str, v: Tensor) -> Tensor:
        both = v @ self.weight(f"{name}.gate_up_proj.weight").T
        half = both.shape[-1] // 2
        gate, up = both[..., :half], both[..., half:]
        if self.twist == "up before gate":
            gate, up = up, gate
        return (gate * gate.sigmoid() * up) @ self.weight(f"{name}.down_proj.weight").T

    def rope_tables(self) -> tuple[Tensor, Tensor]:
        width = self.hidden // self.heads
        angles = torch.tensor(
            [
                [p / 10000 ** (2 * (i % (width // 2)) / width) for i in range(width)]
                for p in range(self.tokens)
            ],
            dtype=torch.float64,
        )
        return angles.cos(), angles.sin()

    def turn(self, v: Tensor) -> Tensor:
        """Rotate each pair of channels (i, i + half) by position · frequency, as numbers of C."""
        half = v.shape[-1] // 2
        cos, sin = self.rope_tables()
        phase = torch.complex(cos[:, :half], sin[:, :half])
        if self.twist == "interleaved rotary":
            turned = torch.complex(v[..., 0::2], v[..., 1::2]) * phase
            return torch.stack([turned.real, turned.imag], dim=-1).flatten(-2)
        turned = torch.complex(v[..., :half], v[..., half:]) * phase
        return torch.cat([turned.real, turned.imag], dim=-1)

    def attention(self, name: str, v: Tensor) -> Tensor:
        batch, n, d = v.shape
        width = d // self.heads
        rows = (v @ self.weight(f"{name}.qkv_proj.weight").T).split(d, dim=-1)
        if self.twist == "keys before queries":
            rows = (rows[2], rows[0], rows[1])
        q, k, w = (r.reshape(batch, n, self.heads, width).transpose(1, 2) for r in rows)
        if self.rope:
            q, k = self.turn(q), self.turn(k)
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width), dim=-1)
        mixed: Tensor = (weights @ w).transpose(1, 2).reshape(batch, n, d)
        return mixed @ self.weight(f"{name}.o_proj.weight").T

    def block(self, i: int, h: Tensor) -> Tensor:
        layer = f"L_level.layers.{i}"
        if self.mlp_t:
            turned = h.transpose(1, 2)
            mixed = turned + self.swiglu(f"{layer}.mlp_t", turned)
            if self.twist == "norm over channels":
                h = self.norm(mixed.transpose(1, 2))
            else:
                h = self.norm(mixed).transpose(1, 2)
        else:
            h = self.norm(h + self.attention(f"{layer}.self_attn", h))
        return self.norm(h + self.swiglu(f"{layer}.mlp", h))

    def level(self, z: Tensor, injection: Tensor) -> Tensor:
        g = z + injection
        for i in range(self.layers):
            g = self.block(i, g)
        if self.kind == "trm" or self.twist == "undamped":
            return g
        base = z + injection if self.twist == "damping after injection" else z
        return (1 - self.lambda_) * base + self.lambda_ * g

    def embed(self, tokens: Tensor) -> Tensor:
        return math.sqrt(self.hidden) * self.weight("embed_tokens.embedding_weight")[tokens.long()]

    def step(self, high: Tensor, low: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(self.h_cycles):
            if self.twist == "upper state first":
                high = self.level(high, low)
            for _ in range(self.l_cycles):
                low = self.level(low, high + x)
            if self.twist == "input into both states":
                high = self.level(high, low + x)
            elif self.twist != "upper state first":
                high = self.level(high, low)
        return high, low

    def read(self, high: Tensor) -> tuple[Tensor, Tensor]:
        token = -1 if self.twist == "halting on the last token" else 0
        q = high[:, token] @ self.weight("q_head.weight").T + self.weight("q_head.bias")
        return high @ self.weight("lm_head.weight").T, q
