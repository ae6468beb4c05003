"""One request, wave by wave, each wave in shards."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from eqr_core.engine import waves
from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.engine import Engine
from eqr_core.engine.trajectory import Prediction, Request, Shard, Trajectory
from eqr_core.errors import DeadlineExceeded
from service.fanout.part import Places
from service.fanout.wave import Wave

Split = Callable[[int, int], Sequence[int]]
"""Sizes of the shards of a wave, by its width and depth; the first shard runs here."""


async def run_request(
    engine: Engine, asked: SolveRequest, split: Split, places: Places, end: float
) -> AsyncGenerator[Progress | Answer, None]:
    """The progress of the leading shard now and then, and the answer, which is `engine`'s own.

    Nothing but `nfe` depends on the shards: a cut trajectory ends where it happens to be. The
    request must have an id and need outer steps; `end` is its deadline on `monotonic`'s clock.
    Raises as `AsyncEngine.submit` does. Closing the iterator cancels all shards.
    """
    submitted = time.monotonic()
    first_slot: float | None = None
    request = _request(engine, asked)
    waves.begin_wave(request)
    while request.finish_reason is None:
        if time.monotonic() >= end:
            waves.stop(request, "deadline")
            break
        sizes = split(len(request.wave), request.wave[0].depth)
        wave = Wave(request, _shards(request, asked, sizes), places, end)
        async with aclosing(wave.run()) as events:
            async for progress in events:
                yield progress
        first_slot = first_slot or wave.first_slot
        if wave.late:
            waves.stop(request, "deadline")
        else:
            waves.settle(request)
    answer = engine.sum_up(request, asked, submitted, first_slot)
    if not answer.answered and answer.finish_reason == "deadline":
        raise DeadlineExceeded("the deadline passed before the first outer step")
    yield answer


def _request(engine: Engine, asked: SolveRequest) -> Request:
    task, budget = asked.task, asked.budget
    own = engine.models[asked.model].tolerance

    def verify(prediction: Prediction) -> bool:
        grid = task.decode(np.frombuffer(prediction, dtype=np.uint8))
        return task.verify(asked.grid, grid)

    return Request(
        id=asked.id,
        budget=budget,
        tolerance=own if budget.tolerance is None else budget.tolerance,
        verify=verify,
    )


def _shards(
    request: Request, asked: SolveRequest, sizes: Sequence[int]
) -> Iterator[tuple[list[Trajectory], SolveRequest]]:
    start = 0
    for size in sizes:
        part = request.wave[start : start + size]
        start += size
        first = part[0]
        # Its depth stays, as the patience may not be above it; the wave may have less of it.
        budget = replace(asked.budget, breadth=size, nfe=None)
        shard = Shard(first.index, first.wave, first.depth)
        yield part, replace(asked, budget=budget, shard=shard, id=f"{asked.id}/{first.index}")
