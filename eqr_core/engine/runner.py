"""One outer step for the busy slots, on a CPU. `graphs` has the runner of a GPU.

A trajectory must give the same bits alone and in company. Native code steps the rows where they
stand, each by itself, and needs no more; docs/performance.md says when there is some.

Without it torch computes. Every operator treats the rows of a batch independently, but a matrix
library may round differently at another batch size. So rows are computed in groups of a few fixed
sizes, and a size is used only where this machine's arithmetic was seen to agree with single rows,
bit for bit; that is tried when a size is first needed. Where most of the time goes through memory
a group that outgrows the cache is slower (measured: `units` 9×9, hidden 64, one thread: 75 rows/s
singly, 45 in a batch of 64); where it goes into products of matrices, whose weights a group reads
once, it is faster (measured: the paper's operator at hidden 512, of the GEMM peak: 47 % singly,
66 % in eights, 53 % in sixteens). Compiled steps always take one row: compiling takes seconds a
size, and a group is no faster (measured: 297 rows/s singly, 304 in eights).
Idle slots are never gathered, so whatever they hold, NaN included, reaches nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqr_core.engine.compiling import CompiledStep
from eqr_core.engine.randomness import path_noise
from eqr_core.engine.slots import SlotPool
from eqr_core.model.config import OperatorConfig
from eqr_core.model.native import SingleStep, single_arithmetic, single_step
from eqr_core.model.operator import Noise, Operator, State, residual

GROUP_SIZES = (16, 8, 4, 2)
GROUP_VALUES = 65_536
"""State values in one group at most, so that its tensors stay in cache."""
MATRIX_MIXERS, MATRIX_GROUP_VALUES = ("token", "attention"), 400_000
"""The same where products of matrices take most of the time."""
THREAD_ROWS, THREAD_VALUES = 4, 200_000
"""Rows that a thread of native code steps in one call, and state values of them, at most; one row
always. Calls and their threads cost time, and after each a deadline is looked at: some 20 ms."""


def arithmetic(config: OperatorConfig, compiled: bool = False) -> str:
    """What a runner computes with: two that differ may round differently.

    ``native-…``, else ``compiled`` where asked for, else ``eager``.
    """
    return single_arithmetic(config) or ("compiled" if compiled else "eager")


@dataclass(frozen=True)
class Row:
    """One trajectory's outer step number `step` ≥ 1 in `slot`; β = `noise`."""

    slot: int
    seed: int
    trajectory: int
    step: int
    noise: float


class Runner:
    """Steps the rows of one pool with one operator.

    `compiled` asks torch to compile what native code does not compute.
    """

    def __init__(self, operator: Operator, pool: SlotPool, compiled: bool = False) -> None:
        self._operator = operator
        self._pool = pool
        self._outer_step = operator.outer_step
        self._native = single_step(operator)
        self.group_sizes: tuple[int, ...] = (1,)
        if self._native:
            threads, values = torch.get_num_threads(), torch.Size(operator.state_shape).numel()
            each = max(1, min(THREAD_ROWS, THREAD_VALUES // values))
            self.group_sizes = tuple(range(each * threads, 0, -1))
        elif compiled:
            self._outer_step = CompiledStep(operator)
        else:
            values = torch.Size(operator.state_shape).numel()
            matrices = operator.config.mixer in MATRIX_MIXERS
            most = MATRIX_GROUP_VALUES if matrices else GROUP_VALUES
            self.group_sizes = (*(size for size in GROUP_SIZES if size * values <= most), 1)
        self._agrees = {size: True for size in self.group_sizes if self._native or size == 1}

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], until: float = math.inf) -> dict[int, tuple[float, bytes]]:
        """One outer step of each row: (residual, answer tokens), by slot.

        Rows whose turn has not come at the moment `until` of `time.monotonic` are left out, but
        the first group never is.
        """
        results: dict[int, tuple[float, bytes]] = {}
        quiet, noisy = [r for r in rows if not r.noise], [r for r in rows if r.noise]
        # Who was left out the last time stands first in `rows`, so its kind goes first.
        for kind in (noisy, quiet) if rows and rows[0].noise else (quiet, noisy):
            start = 0
            while start < len(kind):
                if results and time.monotonic() >= until:
                    return results
                left = len(kind) - start
                size = next(s for s in self.group_sizes if s <= left and self._may_group(s))
                group = kind[start : start + size]
                start += size
                results.update(zip((row.slot for row in group), self._step(group), strict=True))
        return results

    def _may_group(self, size: int) -> bool:
        if size not in self._agrees:
            self._agrees[size] = _agrees(self._operator, size)
        return self._agrees[size]

    def _step(self, group: Sequence[Row]) -> list[tuple[float, bytes]]:
        if self._native:
            return self._step_in_place(self._native, group)
        slots = torch.tensor([row.slot for row in group])
        old, embedding = self._pool.gather(slots)
        noise = path_noises(group, self._operator.state_shape)
        outer_step = self._operator.outer_step if noise else self._outer_step
        new = outer_step(old, embedding, noise)
        self._pool.scatter(slots, new)
        logits, _ = self._operator.read(new)
        tokens = self._operator.predict(logits).numpy()
        return [
            (change, answer.tobytes())
            for change, answer in zip(residual(new, old).tolist(), tokens, strict=True)
        ]

    def _step_in_place(self, step: SingleStep, group: Sequence[Row]) -> list[tuple[float, bytes]]:
        (state,) = self._pool.state
        noise = None
        if group[0].noise:
            shape = self._operator.state_shape
            noise = torch.empty(len(group), step.updates, *shape)
            for i, r in enumerate(group):
                for j in range(step.updates):
                    noise[i, j] = path_noise(r.seed, r.trajectory, r.step, j, shape, r.noise)
        changes, tokens = step(state, self._pool.embedding, [row.slot for row in group], noise)
        return list(zip(changes.tolist(), map(bytes, tokens.numpy()), strict=True))


def path_noises(group: Sequence[Row], shape: Sequence[int]) -> Noise | None:
    """The rows' own draws for every update, float32 [rows, *shape]; None where they have none."""
    if not group[0].noise:
        return None

    def draw(i: int) -> Tensor:
        return torch.stack(
            [path_noise(r.seed, r.trajectory, r.step, i, shape, r.noise) for r in group]
        )

    return draw


@torch.inference_mode()
def _agrees(operator: Operator, size: int) -> bool:
    """Whether a group of `size` rows has the bits of single rows, on this machine."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, *operator.state_shape)
    state = tuple(torch.randn(shape, generator=generator) for _ in range(operator.state_count))
    embedding = torch.randn(shape, generator=generator)

    def results(rows: slice) -> tuple[Tensor, ...]:
        old = tuple(part[rows] for part in state)
        new = _updated(operator, old, embedding[rows])
        return (*new, residual(new, old), operator.read(new)[0])

    single = zip(*(results(slice(i, i + 1)) for i in range(size)), strict=True)
    together = results(slice(0, size))
    return all(torch.equal(torch.cat(a), b) for a, b in zip(single, together, strict=True))


def _updated(operator: Operator, state: State, e: Tensor) -> State:
    """One update of each state: all that an outer step repeats, in the same shapes."""
    if operator.config.states == "none":
        return operator.outer_step(state, e)
    *uppers, lower = state
    lower = operator.level(lower, uppers[0] + e if uppers else e)
    return (operator.level(uppers[0], lower, upper=True), lower) if uppers else (lower,)
