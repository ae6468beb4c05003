"""Jobs in a real Valkey: states, leases, fences, and the loops that work on them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis import Redis

from service import job_worker, jobs_scripts
from service.embedded import embedded_store
from service.job_worker import JobWorker
from service.jobs import Jobs, JobTimes
from service.orders import Order
from service.problems import Refusal
from service.schemas import BatchItem, JobAnswer, SolveAnswer
from service.store import Store, StoreDown
from tests.service.orders import FOUR, answer, order
from tests.service.stores import until

BODY = {"grid": FOUR}
LEASE = 0.3
TIMES = JobTimes(within=3600.0, kept=60.0, lease=LEASE)
ITEM = BatchItem(answer=answer(order()))


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_worker, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(job_worker, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(job_worker, "LONGEST_RETRY_SECONDS", 0.05)


def play(
    url: str, scene: Callable[[Jobs], Awaitable[None]], times: JobTimes = TIMES, most: int = 100
) -> None:
    async def on_stage() -> None:
        store = Store(url)
        await scene(Jobs(store, times, most))
        await store.close()

    asyncio.run(on_stage())


def bodies(count: int) -> list[dict[str, object]]:
    return [{**BODY, "seed": seed} for seed in range(count)]


def test_a_job_from_its_submission_to_its_end(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        before = time.time()
        stored = await jobs.submit(bodies(2), request_id="r")
        assert (stored.state, stored.progress.done, stored.progress.total) == ("queued", 0, 2)
        assert await jobs.count() == {"queued": 1, "running": 0}
        assert before - 1 <= stored.created_at.timestamp() <= time.time() + 1
        taken = await jobs.take()
        assert taken is not None
        assert (taken.id, taken.request_id, list(taken.left)) == (stored.id, "r", [0, 1])
        assert list(taken.bodies) == bodies(2)
        assert await jobs.take() is None
        assert await jobs.save(taken, 1, ITEM)
        running = await jobs.read(stored.id)
        assert (running.state, running.progress.done, running.results) == ("running", 1, None)
        error = BatchItem(error=Refusal("queue_full", "full").document("r"))
        assert await jobs.save(taken, 0, error)
        done = await jobs.read(stored.id)
        assert (done.state, done.progress.done) == ("done", 2)
        assert done.results == [error, ITEM]
        assert done.ended_at is not None
        assert done.expires_at is not None
        assert (done.expires_at - done.ended_at).total_seconds() == 60
        # After the end nothing changes any more.
        assert not await jobs.save(taken, 0, ITEM)
        assert not await jobs.renew(taken)
        assert await jobs.cancel(stored.id) == done
        assert await jobs.take() is None

    play(store_url, scene)
    with Redis.from_url(store_url) as redis:
        keys = redis.keys("eqr:*")
        assert len(keys) == 2
        for key in keys:
            assert 0 < redis.pttl(key) <= 60_000
        assert not any(redis.hexists(key, "requests") for key in keys)


def test_jobs_wait_in_line(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        names = []
        for _ in range(3):
            names.append((await jobs.submit([BODY])).id)
            await asyncio.sleep(0.003)
        first = await jobs.take()
        assert first is not None
        await jobs.release(first)
        assert (await jobs.read(names[0])).state == "queued"
        taken = [await jobs.take() for _ in range(4)]
        assert [one.id if one else None for one in taken] == [*names, None]
        # What was handed back belongs to the next one.
        assert not await jobs.save(first, 0, ITEM)
        assert not await jobs.renew(first)
        await jobs.release(first)
        assert (await jobs.read(names[0])).state == "running"

    play(store_url, scene)


def test_a_job_whose_holder_died_is_taken_up_where_it_stood(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        name = (await jobs.submit(bodies(3))).id
        dead = await jobs.take()
        assert dead is not None
        await jobs.save(dead, 1, ITEM)
        began = time.monotonic()
        while (heir := await jobs.take()) is None:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began > LEASE / 2
        assert (heir.id, list(heir.left)) == (name, [0, 2])
        assert heir.fence > dead.fence
        assert not await jobs.save(dead, 0, ITEM)
        assert (await jobs.read(name)).progress.done == 1
        # The heir keeps it as long as it renews.
        for _ in range(5):
            await asyncio.sleep(LEASE / 3)
            assert await jobs.renew(heir)
            assert await jobs.take() is None
        for index in (0, 2):
            assert await jobs.save(heir, index, ITEM)
        assert (await jobs.read(name)).state == "done"

    play(store_url, scene)


@pytest.mark.parametrize("taken", [True, False])
def test_a_cancelled_job_keeps_what_is_solved(store_url: str, taken: bool) -> None:
    async def scene(jobs: Jobs) -> None:
        name = (await jobs.submit(bodies(2))).id
        holder = await jobs.take() if taken else None
        if holder is not None:
            await jobs.save(holder, 1, ITEM)
        ended = await jobs.cancel(name)
        assert ended.state == "cancelled"
        assert ended.results == [None, ITEM if taken else None]
        assert await jobs.take() is None
        if holder is not None:
            assert not await jobs.save(holder, 0, ITEM)

    play(store_url, scene)


def test_a_job_that_takes_too_long_expires(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        names = [(await jobs.submit([BODY])).id for _ in range(2)]
        assert await jobs.take() is not None
        await asyncio.sleep(0.25)
        assert await jobs.take() is None
        for name in names:
            ended = await jobs.read(name)
            assert (ended.state, ended.results) == ("expired", [None])
            assert ended.error

    play(store_url, scene, JobTimes(within=0.2, kept=60.0))


def test_a_job_that_kills_its_workers_fails(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(jobs: Jobs) -> None:
        name = (await jobs.submit([BODY])).id
        takes = 0
        while (await jobs.read(name)).state != "failed":
            takes += await jobs.take() is not None
            await asyncio.sleep(0.002)
        assert takes == jobs_scripts.MAX_TAKES
        assert "died" in str((await jobs.read(name)).error)

    play(store_url, scene, JobTimes(within=3600, kept=60, lease=0.001))


def test_the_results_are_forgotten_in_time(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        name = (await jobs.submit([BODY])).id
        taken = await jobs.take()
        assert taken is not None
        await jobs.save(taken, 0, ITEM)
        assert (await jobs.read(name)).state == "done"
        await asyncio.sleep(0.3)
        with pytest.raises(Refusal) as caught:
            await jobs.read(name)
        assert caught.value.code == "unknown_job"

    play(store_url, scene, JobTimes(within=3600, kept=0.2))


def test_a_job_is_its_owners_alone(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        name = (await jobs.submit([BODY], owner="alice")).id
        for ask in (jobs.read, jobs.cancel):
            for owner in ("", "bob"):
                with pytest.raises(Refusal) as caught:
                    await ask(name, owner)
                assert caught.value.code == "unknown_job"
        assert (await jobs.read(name, "alice")).state == "queued"
        taken = await jobs.take()
        assert taken is not None
        assert taken.owner == "alice"

    play(store_url, scene)


def test_more_jobs_than_may_wait_are_refused(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        names = [(await jobs.submit([BODY])).id for _ in range(3)]
        with pytest.raises(Refusal) as caught:
            await jobs.submit([BODY])
        assert caught.value.code == "queue_full"
        await jobs.cancel(names[0])
        await jobs.submit([BODY])

    play(store_url, scene, most=3)


def test_a_repetition_is_the_same_job(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        first = await jobs.submit([BODY], repetition="a" * 64)
        assert await jobs.take() is not None
        again = await jobs.submit([BODY], repetition="a" * 64)
        assert (again.id, again.state) == (first.id, "running")
        assert (await jobs.submit([BODY], repetition="b" * 64)).id != first.id

    play(store_url, scene)


def test_without_the_store_no_job_is_taken() -> None:
    async def scene() -> None:
        with pytest.raises(StoreDown):
            await Jobs(Store(None), TIMES, 10).submit([BODY])

    asyncio.run(scene())


class Solving:
    """Stands where the gateway is: answers after a moment, notes what runs at a time."""

    def __init__(self, seconds: float = 0.0, outcomes: list[Exception] | None = None) -> None:
        self.seeds: list[int] = []
        self.cancelled = 0
        self.now = self.most = 0
        self._seconds = seconds
        self._outcomes = outcomes or []

    async def solve(self, one: Order) -> SolveAnswer:
        self.seeds.append(one.request.seed)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        if self._outcomes:
            raise self._outcomes.pop(0)
        return answer(one)


async def ended(jobs: Jobs, name: str) -> JobAnswer:
    while True:
        found = await jobs.read(name)
        if found.ended_at is not None:
            return found
        await asyncio.sleep(0.01)


def worker(jobs: Jobs, solving: Solving, at_once: int = 8) -> JobWorker:
    one = JobWorker(jobs, solving.solve, at_once, LEASE)
    one.start()
    return one


def test_a_worker_solves_all_items_and_no_more_at_once_than_it_may(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        solving = Solving(0.01)
        working = worker(jobs, solving)
        names = [(await jobs.submit(bodies(count))).id for count in (1, 40, 3)]
        for name, count in zip(names, (1, 40, 3), strict=True):
            found = await ended(jobs, name)
            assert found.state == "done"
            assert found.results is not None
            seeds = [one.answer.seed for one in found.results if one and one.answer]
            assert seeds == list(range(count))
        assert len(solving.seeds) == 44
        assert solving.most == 8
        await working.stop()

    play(store_url, scene)


def test_a_small_job_does_not_wait_for_a_large_one(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        working = worker(jobs, Solving(0.02), at_once=2)
        large = (await jobs.submit(bodies(100))).id
        small = (await jobs.submit(bodies(1))).id
        await ended(jobs, small)
        assert (await jobs.read(large)).progress.done < 50
        await working.stop()

    play(store_url, scene)


def test_what_passes_is_tried_again_and_what_does_not_is_the_items_end(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        passing = [Refusal(code, "") for code in ("queue_full", "not_ready", "draining")]
        working = worker(jobs, Solving(outcomes=[*passing, Refusal("quota_exceeded", "spent")]))
        name = (await jobs.submit([BODY, {"grid": "1"}, {"grid": FOUR, "no": 1}])).id
        found = await ended(jobs, name)
        assert found.results is not None
        codes = [one.error.code for one in found.results if one and one.error]
        assert codes == ["quota_exceeded", "invalid_grid", "invalid_request"]
        await working.stop()
        dying = Solving(outcomes=[Refusal("not_ready", "")] * 1000)
        monkey = worker(jobs, dying)
        found = await ended(jobs, (await jobs.submit([BODY])).id)
        assert found.results is not None
        assert found.results[0] is not None
        assert found.results[0].error is not None
        assert found.results[0].error.code == "not_ready"
        assert len(dying.seeds) == job_worker.MAX_TRIES
        await monkey.stop()

    play(store_url, scene)


def test_a_worker_that_stops_hands_its_jobs_back_at_once(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        slow = Solving(3600)
        working = worker(jobs, slow)
        name = (await jobs.submit(bodies(2))).id
        while slow.now < 2:
            await asyncio.sleep(0.01)
        await working.stop()
        assert slow.cancelled == 2
        assert (await jobs.read(name)).state == "queued"
        other = worker(jobs, Solving())
        assert (await ended(jobs, name)).state == "done"
        await other.stop()

    play(store_url, scene, JobTimes(within=3600, kept=60, lease=3600))


def test_a_cancelled_job_stops_its_solves(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        slow = Solving(3600)
        working = worker(jobs, slow)
        name = (await jobs.submit(bodies(2))).id
        while slow.now < 2:
            await asyncio.sleep(0.01)
        await jobs.cancel(name)
        while slow.now:
            await asyncio.sleep(0.01)
        assert slow.cancelled == 2
        await working.stop()

    play(store_url, scene)


def test_two_workers_never_solve_an_item_twice(store_url: str) -> None:
    async def scene(jobs: Jobs) -> None:
        solvings = [Solving(0.005) for _ in range(3)]
        workers = [worker(jobs, one) for one in solvings]
        names = [(await jobs.submit(bodies(7))).id for _ in range(20)]
        for name in names:
            assert (await ended(jobs, name)).state == "done"
        assert sum(len(one.seeds) for one in solvings) == 140
        for one in workers:
            await one.stop()

    play(store_url, scene, JobTimes(within=3600, kept=60, lease=60))


DYING = """
import asyncio, sys
from service.jobs import Jobs, JobTimes
from service.job_worker import JobWorker
from service.store import Store
from tests.service.test_jobs import LEASE, TIMES, Solving

async def main():
    worker = JobWorker(Jobs(Store(sys.argv[1]), TIMES, 10), Solving(0.05).solve, 1, LEASE)
    worker.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_job_survives_its_worker_and_its_store(tmp_path: Path) -> None:
    """kill -9 for both of them, in the middle; every item has one end, saved once."""

    async def scene(url: str) -> None:
        store = Store(url)
        jobs = Jobs(store, TIMES, 10)
        dying = subprocess.Popen([sys.executable, "-c", DYING, url])
        name = (await jobs.submit(bodies(40))).id
        while (await jobs.read(name)).progress.done < 3:
            await asyncio.sleep(0.01)
        dying.send_signal(signal.SIGKILL)
        dying.wait()
        solving = Solving(0.02)
        working = worker(jobs, solving, at_once=1)
        while (done := (await jobs.read(name)).progress.done) < 10:
            await asyncio.sleep(0.01)
        with Redis.from_url(url) as redis:
            os.kill(int(redis.info("server")["process_id"]), signal.SIGKILL)
        await until(lambda: _done(jobs, name))
        found = await jobs.read(name)
        assert found.results is not None
        seeds = [one.answer.seed for one in found.results if one and one.answer]
        assert seeds == list(range(40))
        assert 30 <= len(solving.seeds) <= 40
        assert done >= 10
        await working.stop()
        await store.close()

    with embedded_store(tmp_path) as url:
        asyncio.run(scene(url))


async def _done(jobs: Jobs, name: str) -> bool:
    try:
        return (await jobs.read(name)).state == "done"
    except StoreDown:
        return False
