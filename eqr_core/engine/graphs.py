"""Outer steps on a GPU: one captured graph a tick, one small copy back.

A GPU spends most of a small operator's time on launches, so a tick is a single launch: a CUDA graph
over static buffers that gathers the busy rows, makes their outer step, puts them back and leaves
residuals and predictions in one tensor, whose copy to the host is all that a tick waits for. There
is a graph for a few row counts (buckets); a tick takes the smallest that holds its rows and fills
it up with the pool's last row, which is no trajectory's.

A trajectory must give the same bits alone and in company, and a matrix library may choose another
kernel at another size. So a bucket below the largest is used only where its graph was seen to give
the bits that the largest one gives.

States are float32 and products TF32: of bfloat16 states none settles at a tolerance that was
calibrated in float32 (docs/performance.md).

On a CPU the same code runs without capture; that is how it is tested. It has not run on a GPU yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from eqr_core.engine.compiling import CompiledStep
from eqr_core.engine.runner import Row, path_noises
from eqr_core.engine.slots import SlotPool
from eqr_core.model.operator import Noise, Operator, residual

Advance = Callable[[Tensor], Tensor]

SHARES = (16, 4)
"""The smaller buckets have one in so many of the largest one's rows."""
WARM_UPS = 3
"""Calls before a capture, in which torch compiles and its libraries set themselves up."""
RESIDUAL_BYTES = 4


class GraphRunner:
    """Steps the rows of a pool on a GPU; the pool's last row must not be used.

    All buckets are compiled, captured and tried on the pool's rows at once, which takes a while.
    """

    def __init__(self, operator: Operator, pool: SlotPool) -> None:
        self._operator = operator
        self._pool = pool
        self._spare = len(pool.embedding) - 1
        self._captures = operator.device.type == "cuda"
        if self._captures:
            torch.set_float32_matmul_precision("high")
        self._outer_step = CompiledStep(operator) if self._captures else operator.outer_step
        largest = self._bucket(self._spare)
        self._buckets = {self._spare: largest}
        for size in {self._spare // share for share in SHARES} - {0, self._spare}:
            bucket = self._bucket(size)
            if self._agree(bucket, largest, size):
                self._buckets[size] = bucket

    @property
    def buckets(self) -> tuple[int, ...]:
        """Row counts in use, the smallest first."""
        return tuple(sorted(self._buckets))

    @torch.inference_mode()
    def run(self, rows: Sequence[Row], until: float = math.inf) -> dict[int, tuple[float, bytes]]:
        """As `Runner.run`, but all rows go together, whatever `until` says."""
        results = {}
        for group in ([r for r in rows if not r.noise], [r for r in rows if r.noise]):
            if group:
                results.update(self._step(group))
        return results

    def _step(self, group: Sequence[Row]) -> dict[int, tuple[float, bytes]]:
        slots = [row.slot for row in group]
        noise = path_noises(group, self._operator.state_shape)
        if noise is None:
            size = next(size for size in self.buckets if size >= len(slots))
            status = self._buckets[size](self._filled(slots, size))
        else:
            like = self._pool.embedding
            rows = self._filled(slots, len(slots)).to(like.device)
            status = self._advance(rows, lambda i: noise(i).to(like))
        return self._read(slots, status.cpu())

    @staticmethod
    def _read(slots: Sequence[int], status: Tensor) -> dict[int, tuple[float, bytes]]:
        rows = status[: len(slots)].numpy()
        moved = rows[:, :RESIDUAL_BYTES].copy().view(np.float32)[:, 0].tolist()
        tokens = map(bytes, rows[:, RESIDUAL_BYTES:])
        return dict(zip(slots, zip(moved, tokens, strict=True), strict=True))

    def _filled(self, slots: Sequence[int], size: int) -> Tensor:
        return torch.tensor([*slots, *[self._spare] * (size - len(slots))])

    def _advance(self, slots: Tensor, noise: Noise | None = None) -> Tensor:
        """One outer step of the rows `slots`: uint8 [rows, 4 + tokens], residual and prediction."""
        old, embedding = self._pool.gather(slots)
        step = self._operator.outer_step if noise else self._outer_step
        new = step(old, embedding, noise)
        self._pool.scatter(slots, new)
        logits, _ = self._operator.read(new)
        moved = residual(new, old)[:, None].view(torch.uint8)
        return torch.cat([moved, self._operator.predict(logits)], dim=1)

    def _bucket(self, size: int) -> Advance:
        if not self._captures:
            return self._advance
        return Captured(self._advance, self._filled([], size).to(self._operator.device))

    @torch.inference_mode()
    def _agree(self, bucket: Advance, largest: Advance, size: int) -> bool:
        """Whether `size` rows get the bits in their bucket that they get among all, elsewhere."""
        generator = torch.Generator().manual_seed(0)
        tensors = (self._pool.embedding, *self._pool.state)
        start = [torch.randn(size, *t.shape[1:], generator=generator).to(t) for t in tensors]

        def results(advance: Advance, filled: Tensor) -> tuple[Tensor, ...]:
            for tensor, values in zip(tensors, start, strict=True):
                tensor[:size] = values
            status = advance(filled).cpu()[filled.argsort()][:size]
            return status, *(part[:size].clone() for part in self._pool.state)

        rows = range(size)
        alone = results(bucket, self._filled(rows, size))
        among = results(largest, self._filled(rows, self._spare).flip(0))
        return all(torch.equal(one, other) for one, other in zip(alone, among, strict=True))


class Captured:
    """`advance` of as many rows as `slots` has, as one CUDA graph over that very tensor."""

    def __init__(self, advance: Advance, slots: Tensor) -> None:
        self._slots = slots
        now, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(now)
        with torch.inference_mode():
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    advance(slots)
            now.wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._status = advance(slots)

    def __call__(self, slots: Tensor) -> Tensor:
        """The status of one replay with `slots`, int64 on the host; overwritten by the next."""
        self._slots.copy_(slots)
        self._graph.replay()
        return self._status
