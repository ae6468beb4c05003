"""Takes jobs out of the store and solves them: loops that run in every ingress replica."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from eqr_core.engine.budget import MAX_DEADLINE_MS
from service.batch import Solve, body_of, failed
from service.jobs import Jobs, TakenJob
from service.orders import order_of
from service.problems import refusal_of
from service.schemas import BatchItem
from service.store import StoreDown

LOOPS = 4
"""Jobs that one worker holds at a time: a small one need not wait for a large one."""
POLL_SECONDS = 0.5
RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 10.0
MAX_TRIES = 20
"""After so many solvers died with an item, or were not there for it, it fails."""

_log = logging.getLogger("ray.serve")


class JobWorker:
    """Runs items of jobs through `solve`, `at_once` of them over all its jobs."""

    def __init__(self, jobs: Jobs, solve: Solve, at_once: int, lease_seconds: float) -> None:
        self._jobs, self._solve = jobs, solve
        self._at_once = at_once
        self._room = asyncio.Semaphore(at_once)
        self._renew_seconds = lease_seconds / 3
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to take jobs, in the event loop that runs now."""
        self._loops = [asyncio.create_task(self._loop()) for _ in range(LOOPS)]

    async def stop(self) -> None:
        """Take no more, and hand back what is held; items that run are cancelled."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []

    async def _loop(self) -> None:
        while True:
            job = await self._take()
            if job is None:
                await asyncio.sleep(POLL_SECONDS)
            else:
                await self._work(job)

    async def _take(self) -> TakenJob | None:
        taking = asyncio.create_task(self._jobs.take())
        try:
            return await asyncio.shield(taking)
        except StoreDown:
            return None
        except asyncio.CancelledError:
            # It may have been taken, and would wait for its lease to end.
            with contextlib.suppress(StoreDown):
                job = await taking
                if job is not None:
                    await self._jobs.release(job)
            raise

    async def _work(self, job: TakenJob) -> None:
        """Run what is left of `job` until it ends or is no longer this worker's."""
        try:
            async with _together(self._hold(job), self._run(job)) as tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreDown):
                await self._jobs.release(job)
            raise

    async def _hold(self, job: TakenJob) -> None:
        """Renew the lease until it is lost: to another worker, or because the job has ended."""
        while True:
            await asyncio.sleep(self._renew_seconds)
            # Without the store nobody else can take the job either.
            with contextlib.suppress(StoreDown):
                if not await self._jobs.renew(job):
                    return

    async def _run(self, job: TakenJob) -> None:
        left = iter(job.left)
        pullers = [self._pull(job, left) for _ in range(min(self._at_once, len(job.left)))]
        async with _together(*pullers) as tasks:
            await asyncio.wait(tasks)

    async def _pull(self, job: TakenJob, left: Iterator[int]) -> None:
        for index in left:
            async with self._room:
                item = await self._end_of(job, index)
            if not await self._save(job, index, item):
                return

    async def _end_of(self, job: TakenJob, index: int) -> BatchItem:
        tries = 0
        while True:
            try:
                order = order_of(body_of(job.bodies[index]), MAX_DEADLINE_MS)
                return BatchItem(answer=await self._solve(replace(order, owner=job.owner)))
            except Exception as error:
                refusal = refusal_of(error)
                code = refusal.code if refusal is not None else ""
                if code == "not_ready":
                    tries += 1
                if code not in ("queue_full", "not_ready", "draining") or tries == MAX_TRIES:
                    return failed(error, job.request_id)
            await asyncio.sleep(min(RETRY_SECONDS * 2**tries, LONGEST_RETRY_SECONDS))

    async def _save(self, job: TakenJob, index: int, item: BatchItem) -> bool:
        while True:
            try:
                return await self._jobs.save(job, index, item)
            except StoreDown:
                await asyncio.sleep(RETRY_SECONDS)


@contextlib.asynccontextmanager
async def _together(*work: Coroutine[Any, Any, None]) -> Any:
    """Tasks of `work`, none of which is left running."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
