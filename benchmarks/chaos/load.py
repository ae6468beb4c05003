"""The load: every kind of request, a bounded number at a time, over REST and gRPC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from benchmarks.chaos.ledger import Ledger, Question
from benchmarks.local import Service
from service.client import NO_RETRIES, AsyncEqrClient, ClientError
from service.schemas import SolveAnswer, new_id

DEADLINE_MS = 15_000
CLIENT_SECONDS = 30.0
"""The service ends everything long before; what takes longer hangs."""
BUDGET = {"depth": 32, "breadth": 4}
WIDE_BUDGET = {"depth": 16, "breadth": 64, "stop": "exhausted"}
"""So much work at once that the service shares it with workers."""
WORKERS = 6
PAUSE_SECONDS = 0.1
BATCH, JOB = 4, 3
OPEN_JOBS = 6
SUBMIT_TRIES = 60
JOB_SECONDS = 90.0
POLL_SECONDS = 0.5

WEIGHTS = {
    **{"solve REST": 8, "solve gRPC": 6, "batch": 2, "stream": 2, "once": 2, "job": 2},
    "wide": 1,
}


def options(question: Question, cache: bool, deadline: bool = True) -> dict[str, Any]:
    """What is sent for a question; a job's items have time."""
    budget: dict[str, Any] = dict(WIDE_BUDGET if question.wide else BUDGET)
    if deadline:
        budget["deadline_ms"] = DEADLINE_MS
    return {"grid": question.grid, "seed": question.seed, "budget": budget, "cache": cache}


class Load:
    """Asks without end. Every request is tried once; what becomes of it goes into the ledger."""

    def __init__(
        self, service: Service, questions: Sequence[Question], ledger: Ledger, seed: int
    ) -> None:
        self._narrow = [question for question in questions if not question.wide]
        self._wide = [question for question in questions if question.wide]
        self._ledger = ledger
        self._source = random.Random(seed)
        self._rest, self._grpc = (
            AsyncEqrClient(address, timeout=CLIENT_SECONDS, retries=NO_RETRIES)
            for address in (service.rest, service.grpc)
        )
        self._jobs = asyncio.Semaphore(OPEN_JOBS)
        self._kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            "solve REST": lambda: self._solve("solve REST", self._rest),
            "solve gRPC": lambda: self._solve("solve gRPC", self._grpc),
            "batch": self._batch,
            "stream": self._stream,
            "once": self._once,
            "job": self._job,
            "wide": self.wide,
        }

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._worker())

    async def attempt(self, kind: str) -> bool:
        """One request of a kind; whether it succeeded."""
        try:
            return await self._kinds[kind]()
        except ClientError as error:
            self._ledger.fail(kind, error)
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()
        await self._grpc.close()

    async def _worker(self) -> None:
        while True:
            (kind,) = self._source.choices(list(WEIGHTS), list(WEIGHTS.values()))
            await self.attempt(kind)
            await asyncio.sleep(self._source.uniform(0.0, 2 * PAUSE_SECONDS))

    def _draw(self, count: int = 1) -> list[Question]:
        return self._source.choices(self._narrow, k=count)

    def _either(self) -> AsyncEqrClient:
        return self._source.choice((self._rest, self._grpc))

    def _cache(self) -> bool:
        return self._source.random() < 0.25

    async def _solve(self, kind: str, client: AsyncEqrClient) -> bool:
        (question,) = self._draw()
        answer = await client.solve(**options(question, self._cache()))
        self._ledger.check(kind, question, answer)
        return True

    async def wide(self) -> bool:
        """One request that the service shares with workers; whether it succeeded."""
        question = self._source.choice(self._wide)
        answer = await self._either().solve(**options(question, False))
        self._ledger.check("wide", question, answer)
        return True

    async def _batch(self) -> bool:
        questions = self._draw(BATCH)
        bodies = [options(question, self._cache()) for question in questions]
        ends = await self._either().solve_batch(bodies)
        pairs = zip(questions, ends, strict=True)
        failed = [pair for pair in pairs if not self._ledger.check_item("batch", *pair)]
        return not failed

    async def _stream(self) -> bool:
        (question,) = self._draw()
        async with aclosing(self._either().stream(**options(question, False))) as events:
            async for event in events:
                if isinstance(event, SolveAnswer):
                    self._ledger.check("stream", question, event)
                    return True
        self._ledger.faults.append("stream: it ended without a result and without an error")
        return False

    async def _once(self) -> bool:
        """The same request twice under one key: the second is answered as the first was."""
        (question,) = self._draw()
        key, client = new_id(), self._either()
        for _ in range(2):
            body = options(question, False)
            answer = await client.solve(**body, idempotency_key=key)
            self._ledger.check("once", question, answer)
        return True

    async def _job(self) -> bool:
        """A job, submitted under one key until it is accepted, and once more; then its end."""
        questions = self._draw(JOB)
        async with self._jobs:
            name = await self._submit(questions)
            return name is not None and await self.follow(name, JOB_SECONDS)

    async def _submit(self, questions: Sequence[Question]) -> str | None:
        bodies = [options(question, self._cache(), deadline=False) for question in questions]
        key, client, accepted = new_id(), self._either(), set()
        for _ in range(SUBMIT_TRIES):
            try:
                job = await client.submit(bodies, idempotency_key=key)
            except ClientError as error:
                self._ledger.fail("job", error)
                await asyncio.sleep(POLL_SECONDS)
                continue
            self._ledger.accept(job, questions)
            accepted.add(job.id)
            if len(accepted) > 1:
                self._ledger.faults.append(f"one key made two jobs: {sorted(accepted)}")
            if self._source.random() < 0.5:
                return job.id
        if not accepted:
            self._ledger.doubtful += 1
            return None
        return accepted.pop()

    async def follow(self, name: str, seconds: float) -> bool:
        """Ask for a job until it has ended, at most `seconds`; whether it has."""
        for _ in range(int(seconds / POLL_SECONDS)):
            try:
                job = await self._rest.job(name)
            except ClientError as error:
                self._ledger.fail("job", error)
            else:
                if job.ended_at is not None:
                    self._ledger.end(job)
                    self._ledger.answered["job"] += 1
                    return True
            await asyncio.sleep(POLL_SECONDS)
        return False
