"""Fan-out: the breadth of one request spread over the cluster (DESIGN section 4).

A solver replica hands a wide request to `FanOut`. Its waves run either here or, where that is
quicker, as shards of which all but the first are Ray tasks on other nodes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import replace

import ray

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.async_engine import AsyncEngine
from eqr_core.engine.budget import MAX_DEADLINE_MS
from eqr_core.model.sizes import named
from eqr_core.tasks import task_at
from service.fanout.cost import Cost, shares, widest_wave
from service.fanout.launch import Launcher
from service.fanout.nodes import Nodes, UnlikeNode, measure, nodes_beside
from service.fanout.part import Places, Reports
from service.fanout.request import run_request
from service.fanout.worker import Report, Unlike
from service.settings import Settings

WATCH_SECONDS = 5.0
NO_DEADLINE_SECONDS = MAX_DEADLINE_MS / 1e3

_log = logging.getLogger("ray.serve")


class FanOut:
    """Solves wide requests with the workers of other nodes.

    A thread watches the cluster; until it has found other nodes and measured what a shard costs
    there, nothing `suits`. Everything else belongs to the event loop of the replica.
    """

    def __init__(
        self, runner: AsyncEngine, settings: Settings, count: Callable[[str], None]
    ) -> None:
        """Ray must be there. `count` is told what became of each shard, by one word."""
        self._runner = runner
        self._engine = runner.engine
        self._settings = settings
        self._count = count
        self._launcher = Launcher(self._engine, settings)
        self._costs: dict[tuple[str, str], Cost] = {}
        self._in_flight = 0
        self._most_in_flight = 0
        """Since the watcher last looked."""
        self.workers = 0
        """Shards of a request that may run elsewhere at a time; 0 until all is measured."""
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="eqr-fanout", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Stop watching the cluster; to be called before this process leaves it."""
        self._stopping.set()
        self._watcher.join()

    def suits(self, request: SolveRequest) -> bool:
        """Whether a wave of `request` would be shared."""
        budget = request.budget
        width = widest_wave(budget.breadth, budget.stop == "exhausted")
        if len(self._shares(request, width, budget.depth)) == 1:
            return False
        return not request.task.verify(request.grid, request.grid)  # a full grid needs no step

    async def submit(self, request: SolveRequest) -> Answer:
        """The answer that the engine here would give, alone; only `nfe` may differ.

        Raises as `AsyncEngine.submit` does. Cancelling the awaiting task cancels all shards.
        """
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return event
        raise RuntimeError("a stream of a solve ended without an answer")

    async def stream(self, asked: SolveRequest) -> AsyncGenerator[Progress | Answer, None]:
        """`submit`, yielding the progress of the leading shard now and then before the answer."""
        end = _end(asked)
        places = Places(
            here=lambda shard: self._runner.stream(_until(end, shard)),
            away=lambda shard: self._away(_until(end, shard)),
            count=self._count,
        )

        def split(width: int, depth: int) -> list[int]:
            return self._shares(asked, width, depth)

        async with aclosing(run_request(self._engine, asked, split, places, end)) as events:
            async for event in events:
                yield event

    def _shares(self, request: SolveRequest, width: int, depth: int) -> list[int]:
        cost = self._costs.get((request.model, request.task.size))
        if cost is None or not self.workers:
            return [width]
        return shares(width, depth, cost, workers=self.workers, slots=self._settings.slots)

    async def _away(self, asked: SolveRequest) -> Reports:
        began = 0
        try:
            with self._launcher.shard(asked, _end(asked)) as reports:
                async for report in reports:
                    told = await report
                    if isinstance(told, Unlike):
                        self._launcher.avoid(told.node)
                    if not began:
                        # Not before: one that waits for a worker is no sign that there are any.
                        began = 1
                        self._in_flight += 1
                        self._most_in_flight = max(self._most_in_flight, self._in_flight)
                    yield told
        finally:
            self._in_flight -= began

    def _watch(self) -> None:
        measured: Nodes | None = None
        told = ""
        # Without Ray, asking for the nodes would join whatever cluster there is on the machine.
        while not self._stopping.is_set() and ray.is_initialized():
            try:
                nodes = nodes_beside(self._launcher.avoided, self._settings)
                if nodes.free and (measured is None or nodes.ids - measured.ids):
                    self._measure()
                    measured = nodes
                # Ray keeps a worker for a second after its shard, and it is not free until then.
                ours, self._most_in_flight = self._most_in_flight, self._in_flight
                self.workers = min(self._settings.fanout_workers, nodes.room, nodes.free + ours)
            except UnlikeNode as error:
                _log.warning("%s, so no shard goes there", error)
                self._launcher.avoid(error.node)
                continue
            except Exception as error:  # the cluster changes under the probe; the next may do
                self.workers = 0
                if told != (told := f"{type(error).__name__}: {error}"):
                    _log.warning("fan-out is off for now: %s", told)
            self._stopping.wait(WATCH_SECONDS)

    def _measure(self) -> None:
        def run(asked: SolveRequest) -> Generator[Report]:
            return self._launcher.run(asked, _end(asked))

        for name, card in self._engine.models.items():
            self._launcher.pack(name)
            for size in named(card.sizes):
                rows, columns = map(int, size.split("x"))
                task = task_at(card.task, rows, columns)
                self._costs[name, size] = measure(run, task, name, self._settings.slots)


def _end(request: SolveRequest) -> float:
    """Its deadline on `monotonic`'s clock."""
    limit = request.budget.deadline_ms
    return time.monotonic() + (NO_DEADLINE_SECONDS if limit is None else limit / 1e3)


def _until(end: float, shard: SolveRequest) -> SolveRequest:
    """`shard` with what is left until `end` of `monotonic`; tries come one after another."""
    left_ms = max(1e-3, (end - time.monotonic()) * 1e3)
    return replace(shard, budget=replace(shard.budget, deadline_ms=left_ms))
