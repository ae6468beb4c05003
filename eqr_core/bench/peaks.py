"""What this machine can do, measured: matrix products and copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from eqr_core.bench.clock import Clock

GEMM_SIZE = 2048
COPY_BYTES = 1 << 28
REPEATS = 4


@dataclass(frozen=True)
class Peaks:
    """A second of processor time of torch's threads."""

    float32_flops: float
    """The best product of two square float32 matrices."""
    bfloat16_flops: float
    """The same in bfloat16: tiles, where the processor has some."""
    copy_bytes: float
    """Read and written by copying what no core's own cache holds."""


def measure_peaks() -> Peaks:
    """The best of a few runs each; torch's libraries compute."""

    def gemm(dtype: torch.dtype) -> float:
        a, b = (torch.ones(GEMM_SIZE, GEMM_SIZE, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        return 2 * GEMM_SIZE**3 / _best(lambda: torch.mm(a, b, out=out))

    source = torch.zeros(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return Peaks(
        gemm(torch.float32),
        gemm(torch.bfloat16),
        2 * COPY_BYTES / _best(lambda: target.copy_(source)),
    )


def _best(work: Callable[[], object]) -> float:
    work()
    clocks = [Clock() for _ in range(REPEATS)]
    for clock in clocks:
        with clock:
            work()
    return min(clock.cpu for clock in clocks)
