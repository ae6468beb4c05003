"""One shard of a wave and what it tells, wherever it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.trajectory import Trajectory
from eqr_core.errors import DeadlineExceeded, QueueFull
from service.fanout.worker import Began, Report

SILENT_SECONDS = 20.0
"""A worker that has begun and says nothing for so long counts as dead."""

QUEUE_SECONDS = 0.05
"""A request that has begun and finds the engine's queue full asks again so much later."""

Reports = AsyncGenerator[Report, None]
Run = Callable[[SolveRequest], Reports]
"""Runs a shard; closing the iterator cancels it."""

Event = Report | Exception | None
"""None: the shard ended without an answer, as its deadline had passed."""


@dataclass(frozen=True)
class Places:
    """Where shards run, and who counts what becomes of those on workers."""

    here: Run
    away: Run
    count: Callable[[str], None]


@dataclass(eq=False)
class Part:
    """One shard of a wave and how far it is."""

    trajectories: list[Trajectory]
    asked: SolveRequest
    away: bool
    tries: int = 0
    begun: bool = False
    """Whether a worker has taken it."""
    since: float = 0.0
    """When this try began, on `monotonic`'s clock."""
    open: bool = True
    """Whether something is still to come."""
    progress: Progress | None = None
    task: asyncio.Task[None] | None = None


async def follow(
    part: Part, places: Places, patient: bool, events: asyncio.Queue[tuple[Part, int, Event]]
) -> None:
    """Run `part` once and put what it tells into `events`, the end of it last.

    `patient`: wait while the engine here has no room, as the request is not new. The number is
    that of the try, by which news of an earlier one are known.
    """
    number = part.tries
    begun = False  # as `part.begun`, which is set only when the event has been taken in
    event: Event = None
    try:
        async with aclosing(_reports(part, places, patient)) as reports:
            while True:
                async with asyncio.timeout(SILENT_SECONDS if part.away and begun else None):
                    event = await anext(reports, None)
                if event is None or isinstance(event, Answer):
                    break
                begun = begun or isinstance(event, Began)
                events.put_nowait((part, number, event))
    except DeadlineExceeded:
        event = None
    except Exception as error:
        event = error
    events.put_nowait((part, number, event))


async def _reports(part: Part, places: Places, patient: bool) -> Reports:
    while True:
        try:
            run = places.away if part.away else places.here
            asked = replace(part.asked, id=f"{part.asked.id}.{part.tries}")
            async with aclosing(run(asked)) as reports:
                async for report in reports:
                    yield report
            return
        except QueueFull:
            if not patient:
                raise
        await asyncio.sleep(QUEUE_SECONDS)
