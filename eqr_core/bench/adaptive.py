"""Contender (a): the engine, as many requests in flight as the workload says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np

from eqr_core.bench.clock import Clock
from eqr_core.bench.workload import Workload
from eqr_core.engine.answer import Answer, SolveRequest
from eqr_core.engine.budget import Budget
from eqr_core.engine.engine import Engine
from eqr_core.engine.stats import Tick


@dataclass
class _Busy:
    """Slots busy, averaged over the time of the ticks."""

    seconds: float = 0.0
    slot_seconds: float = 0.0

    def __call__(self, tick: Tick) -> None:
        self.seconds += tick.seconds
        # Those that ended in the tick were busy in it and are no longer counted.
        self.slot_seconds += tick.seconds * max(tick.slots_busy, tick.outer_steps)


@dataclass(frozen=True)
class Adaptive:
    """What the engine did with a workload."""

    answers: tuple[Answer, ...]
    """In the order of the puzzles."""
    latencies: tuple[float, ...]
    """Seconds from submission to answer, in the order of the puzzles."""
    clock: Clock
    slots_busy: float
    """Share of the slots, over the time of the ticks."""

    @property
    def mean_nfe(self) -> float:
        """Outer steps of a puzzle."""
        return float(np.mean([answer.nfe for answer in self.answers]))


def run_adaptive(workload: Workload, budget: Budget, concurrency: int, slots: int) -> Adaptive:
    """Solve every puzzle once with `concurrency` requests in flight, as far as there are any."""
    busy = _Busy()
    engine = Engine([workload.checkpoint], slots=slots, observer=busy)
    requests = [
        SolveRequest(puzzle.task, puzzle.grid, workload.card.name, budget, seed=i, id=str(i))
        for i, puzzle in enumerate(workload.puzzles)
    ]
    engine.solve([warm_up(requests[0])])
    busy.seconds = busy.slot_seconds = 0.0
    answers: dict[str, Answer] = {}
    clock, waiting = Clock(), count()
    with clock:
        for _ in range(min(concurrency, len(requests))):
            engine.submit(requests[next(waiting)])
        while len(answers) < len(requests):
            for answer in engine.step():
                answers[answer.id] = answer
                if (number := next(waiting)) < len(requests):
                    engine.submit(requests[number])
    ordered = tuple(answers[request.id] for request in requests)
    latencies = tuple(answer.queue_seconds + answer.solve_seconds for answer in ordered)
    return Adaptive(ordered, latencies, clock, busy.slot_seconds / (slots * busy.seconds or 1))


def warm_up(request: SolveRequest) -> SolveRequest:
    """The same puzzle for a few outer steps, so that what is made once is made."""
    return SolveRequest(request.task, request.grid, request.model, Budget(4, 1))
