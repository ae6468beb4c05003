"""What every way in shares: the gateway with its cache, the store, keys, limits, batches, jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray.serve.handle import DeploymentHandle

from service.batch import check_items, solve_all
from service.cache import Cache
from service.gateway import Gateway
from service.idempotency import Idempotency
from service.job_worker import JobWorker
from service.jobs import LEASE_SECONDS, Jobs, JobTimes
from service.limits import Ceilings, Limits
from service.metrics import Collected, IngressMetrics, store_metrics
from service.micro_batch import GROUP
from service.orders import Order, order_of
from service.problems import Refusal
from service.schemas import BatchItem, JobAnswer, SolveBody
from service.security import KeyRing
from service.settings import Settings
from service.store import Store, StoreDown

MODELS_SECONDS = 5.0
"""How old the ingress's knowledge of the models may be, by which the cache finds an answer."""


class Desk:
    """One for each ingress replica. `start` it in the event loop that serves."""

    def __init__(
        self, settings: Settings, solver: DeploymentHandle[Any], metrics: IngressMetrics
    ) -> None:
        self._settings = settings
        url = settings.store_url
        self.store = Store(None if url is None else url.get_secret_value())
        self.keys = None if settings.api_keys_file is None else KeyRing(settings.api_keys_file)
        self.limits = Limits(self.store, self.keys)
        self.gateway = Gateway(
            solver,
            Cache(self.store, settings.cache_seconds, metrics.count_cache),
            self.limits,
            Ceilings(settings.max_depth, settings.max_breadth, settings.max_nfe),
        )
        self.idempotency = Idempotency(self.store, settings.idempotency_seconds)
        times = JobTimes(within=settings.job_seconds, kept=settings.job_result_seconds)
        self._jobs = Jobs(self.store, times, settings.max_jobs)
        self._worker = JobWorker(self._jobs, self.gateway.solve, settings.job_items, LEASE_SECONDS)
        self._learning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn which models there are, and take jobs where there is a store."""
        self._learning = asyncio.create_task(self._learn())
        if self.store.configured:
            self._worker.start()

    async def drain(self) -> None:
        """Take no further work; hand jobs back; what else runs goes on."""
        await self._worker.stop()
        self.gateway.drain()

    async def stop(self) -> None:
        """Hand jobs back and close the store."""
        if self._learning is not None:
            self._learning.cancel()
        await self._worker.stop()
        await self.store.close()

    def owner_of(self, headers: Mapping[str, str]) -> str:
        """Name of the API key in `headers` (names in lower case), empty where none is asked for.

        Refusal ``unauthenticated``.
        """
        return "" if self.keys is None else self.keys.admit(headers).name

    async def order(self, body: SolveBody, owner: str) -> Order:
        """The order that `body` makes, counted against the owner's rate; raises as `order_of`."""
        order = replace(order_of(body, self._settings.deadline_ms), owner=owner)
        await self.limits.take(owner)
        return order

    async def solve_batch(
        self, items: Sequence[Any], owner: str, request_id: str
    ) -> list[BatchItem]:
        """The ends of `items`, bodies of ``POST /solve`` that are checked here."""
        await self.limits.take(owner, len(items))
        settings = self._settings
        # Enough to keep the slots busy, and never a full queue by one client's batch alone.
        at_once = min(2 * settings.slots, settings.queue)
        return await solve_all(
            items,
            # Several groups at a time: while one waits for its last item the others go on.
            self.gateway.together(min(GROUP, max(1, min(at_once, len(items)) // 4))),
            at_once=at_once,
            default_deadline_ms=settings.deadline_ms,
            owner=owner,
            request_id=request_id,
        )

    async def submit(
        self, items: Sequence[Any], pointer: str, owner: str, request_id: str, repetition: str = ""
    ) -> JobAnswer:
        """Store a job of `items`, which stand at `pointer`; each must be one that can be solved."""
        self._refuse_when_draining()
        bodies = check_items(items, pointer, self._settings.deadline_ms)
        for body in bodies:
            self.gateway.check(order_of(body, self._settings.deadline_ms))
        await self.limits.take(owner, len(items))
        return await self._jobs.submit(
            [body.model_dump(mode="json", exclude_defaults=True) for body in bodies],
            owner=owner,
            request_id=request_id,
            repetition=repetition,
        )

    async def job(self, name: str, owner: str) -> JobAnswer:
        """The job `name`; Refusal ``unknown_job``."""
        return await self._jobs.read(name, owner)

    async def cancel_job(self, name: str, owner: str) -> JobAnswer:
        """End the job `name` unless it has ended."""
        return await self._jobs.cancel(name, owner)

    async def collect(self) -> list[tuple[str, Collected]]:
        """Metrics of the store, under its own name; none where there is no store."""
        if not self.store.configured:
            return []
        try:
            return [("store", store_metrics(await self._jobs.count()))]
        except StoreDown:
            return [("store", store_metrics(None))]

    def _refuse_when_draining(self) -> None:
        if self.gateway.draining:
            raise Refusal("draining", "the service is shutting down and takes no further work")

    async def _learn(self) -> None:
        while True:
            with contextlib.suppress(Refusal):
                await self.gateway.learn_models()
            await asyncio.sleep(MODELS_SECONDS)
