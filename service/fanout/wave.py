"""One wave of a request, run as shards: the first of them here, the others on workers.

The engine decides a wave in trajectory time, so it does not matter where a trajectory runs: each
shard ends at its own first win, the smallest of these steps is the wave's t*, and a shard that has
passed t* without a win is cancelled. `waves.crown`, `waves.settle` and `selection.choose` then see
what they would have seen of one engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from time import monotonic
from typing import cast

from ray.exceptions import RayError, RayTaskError

from eqr_core.engine import waves
from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.trajectory import Outcome, Request, Trajectory
from service.fanout.part import Event, Part, Places, follow
from service.fanout.worker import Began, Unlike

TRIES = 3
"""Workers that a shard is given, one after another, before it counts as lost."""

RETRY_SECONDS = 10.0
"""A shard that has failed waits so long for another worker before it is run here: it may be what
killed the first, and there may be no other."""

WAKE_SECONDS = 1.0

DEADLINE_GRACE_SECONDS = 0.5
"""Every shard keeps the deadline itself; so much later nobody waits for the workers' answers."""

_log = logging.getLogger("ray.serve")


class Wave:
    """Runs `request.wave` in parts of the given sizes; the first part runs here.

    What it leaves in `request` is for `waves.settle`, or for `waves.stop` where `late`.
    """

    def __init__(
        self,
        request: Request,
        shards: Iterable[tuple[list[Trajectory], SolveRequest]],
        places: Places,
        end: float,
    ) -> None:
        """`shards` cover the wave; `end` is the deadline on `monotonic`'s clock."""
        self._request = request
        self._places = places
        self._end = end
        self._events: asyncio.Queue[tuple[Part, int, Event]] = asyncio.Queue()
        self._parts = [
            Part(trajectories, asked, away=bool(i))
            for i, (trajectories, asked) in enumerate(shards)
        ]
        self.first_slot: float | None = None
        """When the part that runs here got its first slot, on `monotonic`'s clock."""

    @property
    def late(self) -> bool:
        """Whether the deadline ended it: some trajectories are not done."""
        return any(t.outcome in ("running", "stopped") for t in self._request.wave)

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Run all shards, yielding the progress of the leading one now and then.

        Raises what the engine here raises. Closing the iterator cancels every shard.
        """
        try:
            for part in self._parts:
                self._start(part)
            while any(part.open for part in self._parts):
                if not await self._next():
                    return
                leading = [p.progress for p in self._parts if p.open and p.progress]
                if leading:
                    yield min(leading, key=lambda progress: progress.residual)
        finally:
            await self._close()

    def _start(self, part: Part) -> None:
        part.tries += 1
        part.begun, part.open, part.progress = False, True, None
        part.since = monotonic()
        patient = part is not self._parts[0] or self._request.nfe > 0
        part.task = asyncio.create_task(follow(part, self._places, patient, self._events))

    async def _next(self) -> bool:
        """Take in one event; False when the deadline is long over."""
        left = self._end + DEADLINE_GRACE_SECONDS - monotonic()
        try:
            async with asyncio.timeout(min(max(0.0, left), WAKE_SECONDS)):
                part, run, event = await self._events.get()
        except TimeoutError:
            if left > WAKE_SECONDS:
                self._take_back()
                return True
            for part in self._parts:
                if part.open and part.away and part.begun:
                    self._lose(part)
            return False
        if part.open and run == part.tries:
            self._note(part, event)
            self._cut()
            self._take_back()
        return True

    def _note(self, part: Part, event: Event) -> None:
        match event:
            case Began():
                part.begun = True
            case Progress():
                part.progress = event
            case Answer():
                self._end_part(part, event)
            case Unlike():
                _log.warning(
                    "a worker computes with %s; its shard runs here instead", event.arithmetic
                )
                self._places.count("unlike")
                self._move_here(part)
            case RayError() | TimeoutError() if part.away:
                self._try_again(part, event)
            case Exception():
                raise event
            case None if part.away and monotonic() < self._end:  # its clock is ahead of this one
                self._move_here(part)
            case None:
                part.open = False

    def _try_again(self, part: Part, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        reason = lines[-1 if isinstance(error, RayTaskError) else 0][:300]
        _log.warning("a shard's worker failed: %s: %s", type(error).__name__, reason)
        if part.tries < TRIES:
            self._places.count("retried")
            self._start(part)
        else:
            self._lose(part)

    def _end_part(self, part: Part, answer: Answer) -> None:
        part.open = False
        if part.away:
            self._places.count("done")
        elif self.first_slot is None:
            self.first_slot = monotonic() - answer.solve_seconds
        results = {result.index: result for result in answer.trajectories}
        for trajectory in part.trajectories:
            result = results.get(trajectory.index)
            if result is None:
                trajectory.outcome = "stopped"
                continue
            trajectory.steps = result.iterations
            trajectory.prediction = result.prediction
            trajectory.history = list(result.history)
            trajectory.recent.append(result.residual)
            trajectory.outcome = cast(Outcome, result.outcome)
            self._request.nfe += result.iterations
            if trajectory.outcome in ("converged", "exhausted"):
                waves.crown(self._request, trajectory)

    def _cut(self) -> None:
        """Cancel what has passed t* and has not won by then."""
        cut_at = self._request.cut_at
        for part in self._parts:
            if part.open and part.progress and cut_at and part.progress.passed >= cut_at:
                self._stop(part)
                if part.away:
                    self._places.count("cut")
                for trajectory in part.trajectories:
                    trajectory.steps = part.progress.passed
                    trajectory.outcome = "cut"
                    self._request.nfe += trajectory.steps

    def _take_back(self) -> None:
        """Whoever waits for a worker while nothing runs here runs here."""
        if any(part.open and not part.away for part in self._parts):
            return
        for part in self._parts:
            fresh = part.tries == 1 or monotonic() - part.since >= RETRY_SECONDS
            if part.open and part.away and not part.begun and fresh:
                self._places.count("taken_back")
                self._move_here(part)
                return

    def _move_here(self, part: Part) -> None:
        self._stop(part)
        part.away = False
        self._start(part)

    def _lose(self, part: Part) -> None:
        part.open = False
        self._places.count("lost")
        for trajectory in part.trajectories:
            trajectory.outcome = "lost"

    def _stop(self, part: Part) -> None:
        part.open = False
        if part.task is not None:
            part.task.cancel()

    async def _close(self) -> None:
        for part in self._parts:
            if part.open and part.away:
                self._places.count("cancelled")
            self._stop(part)
        tasks = [part.task for part in self._parts if part.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
