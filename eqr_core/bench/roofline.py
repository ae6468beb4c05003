"""Outer steps a second against what the machine allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from eqr_core.bench.clock import Clock
from eqr_core.bench.peaks import Peaks
from eqr_core.engine.randomness import initial_state
from eqr_core.engine.runner import Row, Runner, arithmetic
from eqr_core.engine.slots import SlotPool
from eqr_core.model.config import OperatorConfig
from eqr_core.model.operator import Operator
from eqr_core.tasks.sudoku import Sudoku

SPLIT_PRODUCTS = 6
"""bfloat16 products of tiles that make one product of native float32 code with tiles."""
LEAST_SECONDS = 2.0


@dataclass(frozen=True)
class Work:
    """What one outer step of one trajectory takes at the least."""

    flops: int
    """Of its matrix products; what else it computes is not counted."""
    bytes: int
    """State and embedding read and the state written once, float32; the weights stay in cache."""


@dataclass(frozen=True)
class Roof:
    """The runner at work, a second of processor time. Shares are from 0 to 1."""

    arithmetic: str
    busy: int
    work: Work
    steps: float
    eager_steps: float
    """Plain torch, all busy rows as one batch."""
    flops: float
    bytes: float
    of_float32: float
    """Share of the float32 GEMM peak."""
    of_roofline: float
    """Share of min(float32 peak, intensity · copy bandwidth)."""
    of_split: float | None
    """Share of the bfloat16 peak over the products that one split product takes; None where no
    tiles are used."""


def count_work(operator: Operator) -> Work:
    """Count one outer step of one row."""
    state, e = _random(operator, 1)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        operator.outer_step(state, e)
    values = e.numel() * (2 * operator.state_count + 1)
    return Work(counter.get_total_flops(), 4 * values)


def measure_roof(operator: Operator, busy: int, peaks: Peaks) -> Roof:
    """Time the runner and plain torch, in turns, with `busy` rows of random states."""
    work = count_work(operator)
    pool = SlotPool(operator, busy)
    state, e = _random(operator, busy)
    for slot in range(busy):
        pool.write(slot, [part[slot] for part in state], e[slot])
    runner = Runner(operator, pool)
    rows = [Row(slot, 0, slot, 1, 0.0) for slot in range(busy)]

    @torch.inference_mode()
    def eager() -> None:
        operator.outer_step(state, e)

    ours, theirs = _in_turns(lambda: runner.run(rows), eager)
    steps, eager_steps = busy / ours, busy / theirs
    flops, moved = steps * work.flops, steps * work.bytes
    roof = min(peaks.float32_flops, work.flops / work.bytes * peaks.copy_bytes)
    name = arithmetic(operator.config)
    tiled = name.startswith("native-bf16")
    return Roof(
        arithmetic=name,
        busy=busy,
        work=work,
        steps=steps,
        eager_steps=eager_steps,
        flops=flops,
        bytes=moved,
        of_float32=flops / peaks.float32_flops,
        of_roofline=flops / roof,
        of_split=SPLIT_PRODUCTS * flops / peaks.bfloat16_flops if tiled else None,
    )


def paper_operator() -> Operator:
    """The paper's operator for Sudoku at hidden 512 with random weights (its section 4)."""
    config = OperatorConfig(
        task="sudoku", mixer="token", hidden=512, blocks=2, cycles=3, updates=6, tokens=81,
        vocabulary=11,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Operator(config, Sudoku(box=(3, 3))).requires_grad_(False)


def _random(operator: Operator, rows: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    shape, count = operator.state_shape, operator.state_count
    drawn = [initial_state(0, row, shape, count + 1) for row in range(rows)]
    *state, e = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    return tuple(state), e


def _in_turns(*works: Callable[[], object]) -> list[float]:
    """Seconds of each, the best of as many rounds as take `LEAST_SECONDS`, two at least."""
    best = [float("inf")] * len(works)
    spent, rounds = 0.0, 0
    while rounds < 3 or spent < LEAST_SECONDS:
        for i, work in enumerate(works):
            with Clock() as clock:
                work()
            spent += clock.cpu
            if rounds:  # the first one makes what is made once
                best[i] = min(best[i], clock.cpu)
        rounds += 1
    return best
