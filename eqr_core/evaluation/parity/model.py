"""Parity of the operator: every tensor of a model fixture, computed from its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eqr_core.errors import CheckpointError, Problem
from eqr_core.evaluation.parity.comparison import EXACT, Comparison, Fixture
from eqr_core.model.checkpoint import assemble
from eqr_core.model.layers import rms_norm, rotary_tables
from eqr_core.model.mixers import AttentionBlock, TokenBlock
from eqr_core.model.operator import Operator, State
from eqr_core.model.reference import Reference, read_reference
from eqr_core.tasks.base import Grid, Task, Tokens
from eqr_core.training.loss import act_loss, stablemax_cross_entropy

STATE_TOLERANCE = 1e-4
RESIDUAL_TOLERANCE = 1e-3
LOSS_TOLERANCE = 1e-9
TASK = "parity"


@dataclass(frozen=True)
class TokenRow(Task):
    """Bare tokens in one row: all that a fixture says of its task. Every row is right."""

    columns: int
    vocabulary: int
    name: str = field(default=TASK, init=False)
    rows: int = field(default=1, init=False)
    blank_token: int = field(default=1, init=False)
    first_value_token: int = field(default=0, init=False)

    @property
    def layout(self) -> None:
        return None

    @property
    def example(self) -> Grid:
        return ((self.blank_token,) * self.columns,)

    def encode(self, grid: Grid) -> Tokens:
        return np.array(grid[0], dtype=np.uint8)

    def decode(self, tokens: Tokens) -> Grid:
        return (tuple(int(token) for token in tokens),)

    def validate(self, grid: Grid) -> list[Problem]:
        return []

    def verify(self, grid: Grid, answer: Grid) -> bool:
        return len(answer[0]) == len(grid[0])

    def text(self, grid: Grid) -> str:
        return " ".join(str(token) for token in grid[0])


def read_operator(fixture: Fixture, tokens: int, ema: bool = True) -> tuple[Operator, Reference]:
    """The operator of a model fixture's own checkpoint."""
    checkpoint = fixture.value("checkpoint")
    path = fixture.folder / str(checkpoint["file"])
    found = read_reference(path, task=TASK, ema=ema)
    if found.averaged != ema:
        raise CheckpointError(f"{path}: it holds no EMA weights")
    if found.operator.tokens not in (None, tokens):
        raise CheckpointError(f"{path}: it takes {found.operator.tokens} tokens, not {tokens}")
    row = TokenRow(tokens, found.operator.vocabulary)
    return assemble(found.weights, found.operator, row), found


def outer_steps(
    operator: Operator, state: State, e: Tensor, count: int
) -> Iterator[tuple[State, Tensor, Tensor, Tensor]]:
    """State, logits, halting outputs and absolute residual of `count` outer steps."""
    for _ in range(count):
        new = operator.outer_step(state, e)
        change = [(a - b).flatten(1) for a, b in zip(new, state, strict=True)]
        state = new
        yield state, *operator.read(state), torch.cat(change, dim=1).norm(dim=1)


@torch.no_grad()
def compare_model(folder: Path) -> list[Comparison]:
    """Every tensor of a model fixture, and what its configuration says of the checkpoint."""
    fixture = Fixture(folder)
    inputs = fixture.take("inputs").long()
    operator, found = read_operator(fixture, inputs.shape[1])
    tolerance = float(fixture.config.get("tolerance", {}).get("atol", STATE_TOLERANCE))
    _compare_checkpoint(fixture, operator, found)
    _compare_parts(fixture, operator, tolerance)
    start = _start(fixture, operator, len(inputs))
    _compare_steps(fixture, operator, start, inputs, tolerance)
    raw, _ = read_operator(fixture, inputs.shape[1], ema=False)
    raw_start = raw.fixed_state(len(inputs)) if raw.config.initial == "fixed" else start
    for _, logits, q, _ in outer_steps(raw, raw_start, raw.embed(inputs), 1):
        fixture.compare("raw_logits_1", logits, tolerance)
        fixture.compare("raw_q_halt_1", q[:, 0], tolerance)
    return fixture.finish()


def _start(fixture: Fixture, operator: Operator, batch: int) -> State:
    if operator.config.initial == "fixed":
        fixture.compare("H_init", operator.start[0], EXACT)
        fixture.compare("L_init", operator.start[1], EXACT)
        return operator.fixed_state(batch)
    return fixture.take("z_H_0"), fixture.take("z_L_0")


def _compare_checkpoint(fixture: Fixture, operator: Operator, found: Reference) -> None:
    block = operator.blocks[0]
    known: dict[str, float] = {
        "n_params": operator.parameter_count,
        "seq_len": operator.task.tokens,
        "vocab_size": operator.task.vocabulary,
        "embed_scale": operator.config.hidden**0.5,
    }
    if isinstance(block, TokenBlock | AttentionBlock):
        known["mlp_intermediate"] = block.mlp.down.weight.shape[1]
    if isinstance(block, TokenBlock):
        known["mlp_t_intermediate"] = block.mix.down.weight.shape[1]
    for name, ours in known.items():
        if fixture.config.get(name) is not None:
            fixture.compare_value(f"config {name}", ours, fixture.config[name], 1e-9)
    step = fixture.value("checkpoint").get("step")
    if step is not None:
        fixture.compare_value("checkpoint step", found.step, step)


def _compare_parts(fixture: Fixture, operator: Operator, tolerance: float) -> None:
    ids = torch.arange(operator.config.vocabulary)
    fixture.compare("embed_scaled", operator.embed(ids[None])[0], tolerance)
    fixture.compare("rms_out", rms_norm(fixture.take("rms_in")), tolerance)
    ce_logits, ce_labels = fixture.take("ce_logits").double(), fixture.take("ce_labels")
    fixture.compare("ce_loss", stablemax_cross_entropy(ce_logits, ce_labels), LOSS_TOLERANCE)

    x, block = fixture.take("block_in"), operator.blocks[0]
    fixture.compare("block_out", block(x), tolerance)
    if isinstance(block, TokenBlock):
        fixture.compare("mlp_out", block.mlp(x), tolerance)
        mixed = block.mix(x.transpose(1, 2)).transpose(1, 2)
        fixture.compare("mlp_t_out", mixed, tolerance)
    elif isinstance(block, AttentionBlock):
        fixture.compare("mlp_out", block.mlp(x), tolerance)
        fixture.compare("attn_out", block.mix(x), tolerance)
        if operator.config.rotary:
            head_width = operator.config.hidden // operator.config.heads
            cos, sin = rotary_tables(torch.arange(x.shape[1]), head_width)
            fixture.compare("rope_cos", cos, tolerance)
            fixture.compare("rope_sin", sin, tolerance)

    injection = fixture.take("level_injection")
    fixture.compare("level_out", operator.level(x, injection, None), tolerance)
    if operator.config.damping or "noise_eps" in fixture.vectors:
        noise = fixture.take("noise_scale_used") * fixture.take("noise_eps")
        fixture.compare("level_out_noisy", operator.level(x, injection, noise), tolerance)


def _compare_steps(
    fixture: Fixture, operator: Operator, state: State, inputs: Tensor, tolerance: float
) -> None:
    labels = fixture.take("labels").long()
    latents = int(fixture.value("num_puzzles_with_latents"))
    per_step: dict[str, list[Tensor]] = {
        name: [] for name in ("residual", "lm_loss", "q_halt_loss", "total_loss")
    }
    count = int(fixture.value("outer_steps_recorded"))
    steps = outer_steps(operator, state, operator.embed(inputs), count)
    for t, (state, logits, q, residual) in enumerate(steps, start=1):
        fixture.compare(f"z_H_{t}", state[0][:latents], tolerance)
        fixture.compare(f"z_L_{t}", state[1][:latents], tolerance)
        fixture.compare(f"logits_{t}", logits, tolerance)
        fixture.compare(f"q_halt_{t}", q[:, 0], tolerance)
        if operator.config.initial == "fixed" or f"q_continue_{t}" in fixture.vectors:
            fixture.compare(f"q_continue_{t}", q[:, 1], tolerance)
        answer, halting = (part.sum() for part in act_loss(logits.double(), q[:, 0], labels))
        losses = (residual, answer, halting, answer + 0.5 * halting)
        for values, value in zip(per_step.values(), losses, strict=True):
            values.append(value)
    for name, values in per_step.items():
        limit = RESIDUAL_TOLERANCE if name == "residual" else tolerance
        fixture.compare(name, torch.stack(values), limit)
