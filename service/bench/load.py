"""Load: requests sent at their times, or as soon as one comes back, and what became of each."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from eqr_core.errors import EqrError
from service.bench.puzzles import Puzzle
from service.client import (
    NO_RETRIES,
    AsyncEqrClient,
    ClientError,
    ServiceError,
)
from service.schemas import BatchItem, SolveAnswer

Endpoint = Literal["solve", "batch"]

ANSWERED = "answered"
SHED_CODES = ("queue_full", "rate_limited", "quota_exceeded", "not_ready", "draining")
"""Of refusals for now; everything else that is no answer is an error."""


class PlanError(EqrError):
    """A load that cannot be made; the message names the option."""

    exit_code = 2


@dataclass(frozen=True)
class Plan:
    """How to load a service. `rate` in requests a second makes the loop an open one."""

    server: str
    rate: float | None = None
    concurrency: int = 64
    seconds: float = 30.0
    warm_up_seconds: float = 2.0
    endpoint: Endpoint = "solve"
    batch: int = 64
    budget: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    api_key: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.endpoint not in ("solve", "batch"):
            raise PlanError(f"endpoint is {self.endpoint!r}; it must be solve or batch")

    @property
    def per_request(self) -> int:
        """Puzzles of one request."""
        return self.batch if self.endpoint == "batch" else 1


@dataclass(frozen=True)
class Item:
    """What became of one puzzle. `code` is ANSWERED or a problem's."""

    band: str
    code: str
    correct: bool = False
    verified: bool = False
    converged: bool = False
    iterations: int = 0
    nfe: int = 0
    engine_seconds: float = 0.0
    """In the engine's queue and slots."""
    cut: bool = False
    """Whether its deadline ended it, with the best answer so far."""

    @property
    def shed(self) -> bool:
        """Whether it was refused for now."""
        return self.code in SHED_CODES


@dataclass(frozen=True)
class Sample:
    """One request, in seconds since the load began. Its latency counts from when it was meant to
    go: what a late sender or a full connection pool adds is waiting too.
    """

    meant: float
    sent: float
    ended: float
    items: tuple[Item, ...]

    @property
    def latency(self) -> float:
        return self.ended - self.meant


class Load:
    """Runs a plan once. `samples` grows while it runs, and stays when it is interrupted."""

    def __init__(self, plan: Plan, puzzles: Iterator[Puzzle]) -> None:
        self.plan = plan
        self.samples: list[Sample] = []
        self.in_flight = 0
        self.interrupted = False
        self.last_error: ClientError | None = None
        self._puzzles = puzzles
        self._begin = 0.0

    @property
    def length(self) -> float:
        """Seconds in which requests begin."""
        return self.plan.warm_up_seconds + self.plan.seconds

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self._begin

    async def run(self, tell: Callable[[Load], None], every: float = 0.25) -> None:
        """Load the service, calling `tell` now and then. Cancelled, it ends with what there is."""
        telling: asyncio.Task[None] | None = None
        client = AsyncEqrClient(
            self.plan.server, api_key=self.plan.api_key, timeout=None, retries=NO_RETRIES
        )
        async with client:
            self._begin = time.perf_counter()
            telling = asyncio.create_task(self._tell(tell, every))
            try:
                if self.plan.rate is None:
                    await self._closed(client)
                else:
                    await self._open(client, self.plan.rate)
            except asyncio.CancelledError:
                self.interrupted = True
            finally:
                telling.cancel()
        tell(self)

    async def _closed(self, client: AsyncEqrClient) -> None:
        async def worker() -> None:
            while (meant := self.now) < self.length:
                await self._send(client, meant, self._next())

        async with asyncio.TaskGroup() as group:
            for _ in range(self.plan.concurrency):
                group.create_task(worker())

    async def _open(self, client: AsyncEqrClient, rate: float) -> None:
        """Poisson arrivals: they do not wait for anything, so neither does their schedule."""
        source, meant = random.Random(self.plan.seed), 0.0
        async with asyncio.TaskGroup() as group:
            while (meant := meant + source.expovariate(rate)) < self.length:
                if (early := meant - self.now) > 0:
                    await asyncio.sleep(early)
                group.create_task(self._send(client, meant, self._next()))

    def _next(self) -> list[Puzzle]:
        return list(islice(self._puzzles, self.plan.per_request))

    async def _send(self, client: AsyncEqrClient, meant: float, puzzles: Sequence[Puzzle]) -> None:
        sent = self.now
        self.in_flight += 1
        try:
            items = await self._ask(client, puzzles)
        except ClientError as error:
            self.last_error = error
            items = [Item(one.band, _code(error)) for one in puzzles]
        finally:
            self.in_flight -= 1
        self.samples.append(Sample(meant, sent, self.now, tuple(items)))

    async def _ask(self, client: AsyncEqrClient, puzzles: Sequence[Puzzle]) -> list[Item]:
        plan = self.plan
        # Kept answers would measure the cache.
        options: Any = {"budget": plan.budget, "model": plan.model, "cache": False}
        if plan.endpoint == "solve":
            answer = await client.solve(puzzles[0].question, **options)
            return [_item(puzzles[0], answer)]
        ends = await client.solve_batch([one.question for one in puzzles], **options)
        return [_end(puzzle, end) for puzzle, end in zip(puzzles, ends, strict=True)]

    async def _tell(self, tell: Callable[[Load], None], every: float) -> None:
        while True:
            await asyncio.sleep(every)
            tell(self)


def _end(puzzle: Puzzle, end: BatchItem) -> Item:
    if end.answer is not None:
        return _item(puzzle, end.answer)
    return Item(puzzle.band, end.error.code if end.error else "no_end")


def _item(puzzle: Puzzle, answer: SolveAnswer) -> Item:
    return Item(
        puzzle.band,
        ANSWERED,
        correct=answer.text == puzzle.answer,
        verified=answer.verified,
        converged=answer.converged,
        iterations=answer.iterations,
        nfe=answer.nfe,
        engine_seconds=(answer.timing_ms.queue + answer.timing_ms.solve) / 1e3,
        cut=answer.finish_reason == "deadline",
    )


def _code(error: ClientError) -> str:
    """The service's code; the error's name where none of its answers came."""
    if isinstance(error, ServiceError):
        return error.code
    return type(error).__name__
