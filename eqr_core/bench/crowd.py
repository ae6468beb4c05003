"""An easy puzzle that arrives while hard ones run, and grids alone and in company."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from eqr_core.bench.adaptive import run_adaptive
from eqr_core.bench.workload import Workload
from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import MAX_DEPTH, Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.turns import FRESH_STEPS

EASY = 20
"""Different easy puzzles at most, of the quarter that takes the fewest outer steps."""


@dataclass(frozen=True)
class Arrivals:
    """Latencies of easy puzzles, ms of processor time from arrival to answer."""

    hard: int
    """Trajectories that ran meanwhile."""
    requests: int
    """Requests they belonged to."""
    count: int
    median_ms: float
    p99_ms: float


def measure_arrivals(
    workload: Workload, slots: int, hard: int, requests: int, count: int
) -> tuple[Arrivals, Arrivals]:
    """`count` easy puzzles one after the other, alone and while `hard` trajectories run.

    The hard ones never end and are shared out evenly among `requests`; none of these is fresh any
    more when the first easy puzzle arrives. Each arrives at a random moment within a tick.
    """
    name = workload.card.name
    ranked = _easiest(workload)
    easy = ranked[: max(1, min(EASY, len(ranked) // 4))]
    engine = Engine([workload.checkpoint], slots=slots, queue=max(1024, hard))

    def arrive() -> list[float]:
        random = np.random.default_rng(0)
        seen = []
        for i in range(count):
            puzzle = workload.puzzles[easy[i % len(easy)]]
            # It came while the tick before was under way.
            begin = time.process_time()
            engine.step()
            arrived = begin + random.random() * (time.process_time() - begin)
            request_id = engine.submit(
                SolveRequest(
                    puzzle.task, puzzle.grid, name, Budget(64, 1), seed=easy[i % len(easy)]
                )
            )
            while all(answer.id != request_id for answer in engine.step()):
                pass
            seen.append(time.process_time() - arrived)
        return seen

    alone = arrive()
    endless = Budget(MAX_DEPTH, hard // requests, stop="exhausted")
    for i in range(requests):
        puzzle = workload.puzzles[ranked[-1 - i % (len(ranked) // 2)]]
        engine.submit(SolveRequest(puzzle.task, puzzle.grid, name, endless, seed=i, id=f"hard {i}"))
    while not all(_settled(engine, f"hard {i}", hard // requests) for i in range(requests)):
        engine.step()
    crowded = arrive()
    for i in range(requests):
        engine.cancel(f"hard {i}")
    engine.step()
    return _summary(alone, 0, 0), _summary(crowded, hard, requests)


def compare_company(
    workload: Workload, budget: Budget, on_run: Callable[[], None]
) -> dict[str, int]:
    """Puzzles whose answer differs from that of the engine with one slot, by how they were run.

    Grid, residual, iterations and trajectory are compared, all exactly.
    """
    alone = _essence(run_adaptive(workload, budget, 1, max(1, budget.breadth)).answers)
    on_run()
    different = {}
    for concurrency, slots in ((8, 8), (64, 64), (64, 61)):
        run = run_adaptive(workload, budget, concurrency, slots)
        pairs = zip(alone, _essence(run.answers), strict=True)
        different[f"{concurrency} in flight, {slots} slots"] = sum(a != b for a, b in pairs)
        on_run()
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        run = run_adaptive(workload, budget, 64, 64)
    finally:
        torch.set_num_threads(threads)
    pairs = zip(alone, _essence(run.answers), strict=True)
    different["64 in flight, other number of threads"] = sum(a != b for a, b in pairs)
    on_run()
    return different


def _essence(answers: Sequence[Answer]) -> list[tuple[object, ...]]:
    return [(a.grid, a.residual, a.iterations, a.finish_reason) for a in answers]


def _easiest(workload: Workload) -> list[int]:
    """Numbers of the puzzles, those of the fewest iterations first."""
    run = run_adaptive(workload, Budget(64, 1), 64, 64)
    return sorted(range(len(run.answers)), key=lambda i: run.answers[i].iterations)


def _settled(engine: Engine, request_id: str, breadth: int) -> bool:
    """Whether the request is no longer fresh; then it may have lost its slot and step no more."""
    progress = engine.progress(request_id)
    steps = min(FRESH_STEPS, FRESH_STEPS // min(breadth, engine.slots) + 2)
    return progress is not None and progress.iteration >= steps


def _summary(seconds: Sequence[float], hard: int, requests: int) -> Arrivals:
    ms = 1000 * np.asarray(seconds)
    return Arrivals(hard, requests, len(ms), float(np.median(ms)), float(np.percentile(ms, 99)))
