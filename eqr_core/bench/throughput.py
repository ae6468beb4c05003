"""Puzzles a second at equal accuracy: the engine and static batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice

from eqr_core.bench.adaptive import run_adaptive
from eqr_core.bench.match import Fixed, match_fixed
from eqr_core.bench.static import Arithmetic, StaticBatches
from eqr_core.bench.workload import Workload
from eqr_core.engine.budget import Budget
from eqr_core.model.native import single_arithmetic


@dataclass(frozen=True)
class Row:
    """One contender. Rates count processor time of torch's threads, `wall` time by the clock."""

    name: str
    puzzles_per_second: float
    puzzles_per_wall_second: float
    nfe: float
    """Outer steps of a puzzle, on average."""
    accuracy: float | None
    outer_steps: int
    """Of all rows, timed: static batches are timed for a while, not to their end."""
    engine_is: float = 1.0
    """How many times the engine's rate is this one's."""


@dataclass(frozen=True)
class Throughput:
    """All contenders, the engine first, and what else was seen of it."""

    rows: tuple[Row, ...]
    fixed: Fixed
    slots_busy: float
    median_latency_ms: float
    p99_latency_ms: float


def contenders(workload: Workload) -> tuple[Arithmetic, ...]:
    """Static batches that this machine can run."""
    native = single_arithmetic(workload.card.operator) is not None
    return ("eager", "compiled", "native") if native else ("eager", "compiled")


def measure_throughput(
    workload: Workload,
    budget: Budget,
    concurrency: int,
    slots: int,
    batch: int,
    seconds: float,
    fixed: Fixed | None,
    note: Callable[[str], None],
) -> Throughput:
    """Run the engine over the workload, find the fixed budget, time static batches in turns.

    A static batch takes `fixed.nfe` outer steps of each of its rows; each kind is timed for
    `seconds` of processor time at least.
    """
    note("engine")
    adaptive = run_adaptive(workload, budget, concurrency, slots)
    accuracy = workload.accuracy([answer.grid for answer in adaptive.answers])
    if fixed is None:
        done = 0

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            note(f"fixed budget of equal accuracy, {done} puzzles solved")

        fixed = match_fixed(workload, budget, accuracy, on_rows)
    grids = [puzzle.grid for puzzle in islice(cycle(workload.puzzles), batch)]
    runs = {}
    for kind in contenders(workload):
        note(f"static batches ({kind}), first step")
        runs[kind] = StaticBatches(workload.operator, kind).begin(grids)
    note("static batches in turns")
    while any(run.clock.cpu < seconds for run in runs.values()):
        for run in runs.values():
            if run.clock.cpu < seconds:
                run.go_on()
    count = len(workload.puzzles)
    rows = [
        Row(
            "engine, adaptive",
            count / adaptive.clock.cpu,
            count / adaptive.clock.wall,
            adaptive.mean_nfe,
            accuracy,
            sum(answer.nfe for answer in adaptive.answers),
        )
    ]
    for kind, run in runs.items():
        made = run.steps * run.rows
        rows.append(
            Row(
                f"static batches, {kind}",
                made / run.clock.cpu / fixed.nfe,
                made / run.clock.wall / fixed.nfe,
                fixed.nfe,
                fixed.accuracy,
                made,
                (count / adaptive.clock.cpu) / (made / run.clock.cpu / fixed.nfe),
            )
        )
    ordered = sorted(adaptive.latencies)
    return Throughput(
        rows=tuple(rows),
        fixed=fixed,
        slots_busy=adaptive.slots_busy,
        median_latency_ms=1000 * ordered[len(ordered) // 2],
        p99_latency_ms=1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    )
