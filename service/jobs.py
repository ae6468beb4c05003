"""Jobs: puzzles that are stored first and solved in their own time, whoever dies meanwhile.

A job is held under a lease by one worker at a time. Every change of hands raises its `fence`, and
what a worker does under an older fence is refused: a job ends once, and each item once. Times are
the store's, in milliseconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from service import jobs_scripts as scripts
from service.problems import Refusal
from service.schemas import BatchItem, JobAnswer, JobProgress, JobState, new_id
from service.store import PREFIX, Store

LEASE_SECONDS = 10.0
"""A worker that has died holds its jobs for so long."""

QUEUE, LEASES, ENDS = "jobs:queue", "jobs:leases", "jobs:ends"


@dataclass(frozen=True)
class JobTimes:
    """How long jobs may take, and how long their ends are kept; in seconds."""

    within: float
    kept: float
    lease: float = LEASE_SECONDS


@dataclass(frozen=True)
class TakenJob:
    """A job in the hands of one worker."""

    id: str
    fence: int
    owner: str
    request_id: str
    """Of the request that submitted it."""
    bodies: Sequence[Mapping[str, Any]]
    left: Sequence[int]
    """Indices of the items that have not ended."""


class Jobs:
    """The jobs in the store. Every method raises StoreDown."""

    def __init__(self, store: Store, times: JobTimes, most: int) -> None:
        """`most` jobs may wait or run at a time."""
        self._store, self._times, self._most = store, times, most

    async def submit(
        self,
        bodies: Sequence[Mapping[str, Any]],
        *,
        owner: str = "",
        request_id: str = "",
        repetition: str = "",
    ) -> JobAnswer:
        """Store a job of `bodies`, one an item; it is on the disk when this returns.

        A `repetition` that was seen before gives the job it made then. Refusal ``queue_full``.
        """
        name = repetition[:32] or new_id()
        outcome: bytes = await self._store.run_durably(
            scripts.SUBMIT,
            [*_keys(name), QUEUE, ENDS],
            name,
            len(bodies),
            json.dumps(list(bodies)),
            owner,
            request_id,
            _ms(self._times.within),
            self._most,
        )
        if outcome == b"full":
            raise Refusal("queue_full", f"{self._most} jobs wait or run already")
        return await self.read(name, owner)

    async def read(self, name: str, owner: str = "") -> JobAnswer:
        """The job `name` of `owner` as it stands; Refusal ``unknown_job``."""
        found: list[Any] = await self._store.run(scripts.READ, _keys(name), owner)
        if not found:
            raise Refusal("unknown_job", "there is no such job, or its results are kept no longer")
        return _answer(name, *found)

    async def cancel(self, name: str, owner: str = "") -> JobAnswer:
        """End the job `name` unless it has ended; what is solved is kept."""
        await self._store.run(
            scripts.CANCEL,
            [*_keys(name), QUEUE, LEASES, ENDS],
            name,
            owner,
            _ms(self._times.kept),
        )
        return await self.read(name, owner)

    async def take(self) -> TakenJob | None:
        """The job that has waited longest, under a lease; None where none waits.

        Jobs whose worker has died wait again first; those whose time has passed end.
        """
        found: list[Any] | None = await self._store.run(
            scripts.TAKE,
            [QUEUE, LEASES, ENDS],
            PREFIX,
            _ms(self._times.lease),
            _ms(self._times.kept),
        )
        if not found:
            return None
        name, fence, requests, owner, request_id, *ended = found
        bodies = json.loads(requests)
        done = {int(index) for index in ended}
        left = [index for index in range(len(bodies)) if index not in done]
        return TakenJob(
            name.decode(), int(fence), owner.decode(), request_id.decode(), bodies, left
        )

    async def renew(self, job: TakenJob) -> bool:
        """Keep `job` for another lease; False where it is no longer this worker's."""
        done: int = await self._store.run(
            scripts.RENEW, [*_keys(job.id), LEASES], job.id, job.fence, _ms(self._times.lease)
        )
        return bool(done)

    async def save(self, job: TakenJob, index: int, item: BatchItem) -> bool:
        """Keep the end of an item, and with the last one end the job; False as `renew`."""
        done: int = await self._store.run(
            scripts.SAVE,
            [*_keys(job.id), QUEUE, LEASES, ENDS],
            job.id,
            job.fence,
            index,
            item.model_dump_json(),
            _ms(self._times.kept),
        )
        return bool(done)

    async def release(self, job: TakenJob) -> None:
        """Hand `job` back: it waits again, at its old place."""
        await self._store.run(scripts.RELEASE, [*_keys(job.id), QUEUE, LEASES], job.id, job.fence)

    async def count(self) -> dict[str, int]:
        """How many jobs are in each of the states that have no end."""
        queued, running = await self._store.run(scripts.COUNT, [QUEUE, LEASES])
        return {"queued": int(queued), "running": int(running)}


def _keys(name: str) -> list[str]:
    return [f"job:{name}", f"job:{name}:items"]


def _ms(seconds: float) -> int:
    return int(seconds * 1e3)


def _answer(name: str, fields: Sequence[bytes | None], items: Sequence[bytes]) -> JobAnswer:
    state, total, done, created, ended, expires, error = (
        "" if field is None else field.decode() for field in fields
    )
    results: list[BatchItem | None] | None = None
    if ended:
        results = [None] * int(total)
        for index, item in zip(items[::2], items[1::2], strict=True):
            results[int(index)] = BatchItem.model_validate_json(item)
    return JobAnswer(
        id=name,
        state=cast(JobState, state),
        progress=JobProgress(done=int(done), total=int(total)),
        created_at=_time(created),
        ended_at=_time(ended) if ended else None,
        expires_at=_time(expires) if expires else None,
        error=error or None,
        results=results,
    )


def _time(ms: str) -> datetime:
    return datetime.fromtimestamp(int(ms) / 1e3, UTC)
