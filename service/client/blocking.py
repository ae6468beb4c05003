"""The blocking client, over REST or gRPC as the address says."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from types import TracebackType
from typing import Any, Self, Unpack

from service.client import calls
from service.client.calls import Answer, Call, SolveOptions
from service.client.errors import ClientError
from service.client.events import Event
from service.client.retries import DEFAULT_RETRIES, Attempts, Clock, Retries, polls
from service.client.transport import open_transport
from service.schemas import BatchItem, JobAnswer, ModelAnswer, SolveAnswer


class EqrClient:
    """Blocking client; one may be used by several threads.

    `server` is ``http://host:8000`` (or https, or no scheme) for REST, ``grpc://host:9000`` (or
    grpcs) for gRPC. `timeout` is the time of one call in seconds with all its attempts; methods
    take one of their own. Without it the service's deadline ends a solve, and nothing else.
    Methods raise the errors of `service.client.errors`.
    """

    def __init__(
        self,
        server: str,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        retries: Retries = DEFAULT_RETRIES,
    ) -> None:
        self._transport = open_transport(server, api_key)
        self._timeout, self._retries = timeout, retries

    def solve(
        self,
        grid: Any,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> SolveAnswer:
        """Solve one grid: rows of integers (0 for a blank), or text."""
        return self._call(calls.solve_call(grid, options, idempotency_key), timeout)

    def solve_batch(
        self,
        puzzles: Iterable[Any],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> list[BatchItem]:
        """Solve several; each ends with an answer or an error of its own, in order.

        A puzzle is a grid, or a mapping of ``grid`` and options, which go before `options`.
        """
        return self._call(calls.batch_call(puzzles, options, idempotency_key), timeout).results

    def stream(
        self, grid: Any, *, timeout: float | None = None, **options: Unpack[SolveOptions]
    ) -> Generator[Event, None, None]:
        """Solve one grid: `ProgressAnswer`s, and at last the `SolveAnswer`. Closing it ends it.

        A stream that breaks, or is refused for now after it has begun, is asked for again as every
        call is, and its progress begins anew: the same request has the same answer. `timeout` ends
        it with TimedOut at its next event.
        """
        call, clock = calls.stream_call(grid, options), Clock(timeout, self._timeout)
        attempts = Attempts(self._retries, clock)
        while True:
            try:
                with closing(self._transport.stream(call, clock.left())) as events:
                    for event in events:
                        clock.left()
                        yield event
                return
            except ClientError as error:
                time.sleep(attempts.pause_after(error))

    def submit(
        self,
        puzzles: Iterable[Any],
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SolveOptions],
    ) -> JobAnswer:
        """Store a job of several puzzles, as `solve_batch` takes them; it outlives this process.

        Sent twice with one idempotency key, it is one job. Without a key the client makes one.
        """
        return self._call(calls.submit_call(puzzles, options, idempotency_key), timeout)

    def job(self, job: JobAnswer | str, *, timeout: float | None = None) -> JobAnswer:
        """A job as it stands."""
        return self._call(calls.job_call(job), timeout)

    def cancel(self, job: JobAnswer | str, *, timeout: float | None = None) -> JobAnswer:
        """End a job; one that has ended stays as it is."""
        return self._call(calls.cancel_call(job), timeout)

    def wait(self, job: JobAnswer | str, *, timeout: float | None = None) -> JobAnswer:
        """The job once it has ended, however it did. TimedOut after `timeout` seconds, if any."""
        clock = Clock(timeout)
        for pause in polls():
            found = self.job(job, timeout=clock.left())
            if found.ended_at is not None:
                break
            time.sleep(clock.fit(pause))
        return found

    def models(self, *, timeout: float | None = None) -> list[ModelAnswer]:
        """The models that are served."""
        return self._call(calls.models_call(), timeout).models

    def model(self, name: str, *, timeout: float | None = None) -> ModelAnswer:
        """One model by its name."""
        return self._call(calls.model_call(name), timeout)

    def _call(self, call: Call[Answer], timeout: float | None) -> Answer:
        clock = Clock(timeout, self._timeout)
        attempts = Attempts(self._retries, clock)
        while True:
            try:
                return self._transport.send(call, clock.left())
            except ClientError as error:
                time.sleep(attempts.pause_after(error))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
