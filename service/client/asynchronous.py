"""The client for asyncio: the methods of `EqrClient`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

from service.client import calls
from service.client.calls import Answer, Call, SolveOptions
from service.client.errors import ClientError
from service.client.events import Event
from service.client.retries import DEFAULT_RETRIES, Attempts, Clock, Retries, polls
from service.client.transport import open_async_transport
from service.schemas import BatchItem, JobAnswer, ModelAnswer, SolveAnswer


class AsyncEqrClient:
    """The same for asyncio, in one event loop. A cancelled call ends its solve."""

    def __init__(
        self,
        server: str,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: Retries = DEFAULT_RETRIES,
    ) -> None:
        self._transport = open_async_transport(server, api_key)
        self._timeout, self._retries = timeout, retries

    async def solve(
        self,
        grid: Any,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> SolveAnswer:
        """Solve one grid: rows of integers (0 for a blank), or text."""
        return await self._call(calls.solve_call(grid, options, idempotency_key), timeout)

    async def solve_batch(
        self,
        puzzles: Iterable[Any],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> list[BatchItem]:
        """As `EqrClient.solve_batch`."""
        call = calls.batch_call(puzzles, options, idempotency_key)
        return (await self._call(call, timeout)).results

    async def stream(
        self, grid: Any, *, timeout: float | None = None, **options: Unpack[SolveOptions]
    ) -> AsyncGenerator[Event, None]:
        """As `EqrClient.stream`."""
        call, clock = calls.stream_call(grid, options), Clock(timeout, self._timeout)
        attempts = Attempts(self._retries, clock)
        while True:
            try:
                async with aclosing(self._transport.stream(call, clock.left())) as events:
                    async for event in events:
                        clock.left()
                        yield event
                return
            except ClientError as error:
                await asyncio.sleep(attempts.pause_after(error))

    async def submit(
        self,
        puzzles: Iterable[Any],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> JobAnswer:
        """As `EqrClient.submit`."""
        return await self._call(calls.submit_call(puzzles, options, idempotency_key), timeout)

    async def job(self, job: JobAnswer | str, *, timeout: float | None = None) -> JobAnswer:
        """A job as it stands."""
        return await self._call(calls.job_call(job), timeout)

    async def cancel(self, job: JobAnswer | str, *, timeout: float | None = None) -> JobAnswer:
        """End a job; one that has ended stays as it is."""
        return await self._call(calls.cancel_call(job), timeout)

    async def wait(self, job: JobAnswer | str, *, timeout: float | None = None) -> JobAnswer:
        """As `EqrClient.wait`."""
        clock = Clock(timeout)
        for pause in polls():
            found = await self.job(job, timeout=clock.left())
            if found.ended_at is not None:
                break
            await asyncio.sleep(clock.fit(pause))
        return found

    async def models(self, *, timeout: float | None = None) -> list[ModelAnswer]:
        """The models that are served."""
        return (await self._call(calls.models_call(), timeout)).models

    async def model(self, name: str, *, timeout: float | None = None) -> ModelAnswer:
        """One model by its name."""
        return await self._call(calls.model_call(name), timeout)

    async def _call(self, call: Call[Answer], timeout: float | None) -> Answer:
        clock = Clock(timeout, self._timeout)
        attempts = Attempts(self._retries, clock)
        while True:
            try:
                return await self._transport.send(call, clock.left())
            except ClientError as error:
                await asyncio.sleep(attempts.pause_after(error))

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
