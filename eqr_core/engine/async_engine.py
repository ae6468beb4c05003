"""The engine for asyncio: one thread steps it, any event loop may ask it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from eqr_core.engine.answer import Answer, Progress, SolveRequest
from eqr_core.engine.engine import Engine
from eqr_core.errors import DeadlineExceeded, EngineStopped, QueueFull

PROGRESS_SECONDS = 0.05
"""A stream gets no more than one progress in this time; what comes between is dropped."""


@dataclass(eq=False)
class _Waiter:
    """Who waits for a request, in which event loop. Its methods may be called in any thread."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer | None]
    streams: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress | None = None
    reported: float = 0.0

    def resolve(self, result: Answer | Exception | None) -> None:
        self._in_loop(self._resolve, result)

    def report(self, progress: Progress) -> None:
        self._in_loop(self._report, progress)

    def _in_loop(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(call, *args)

    def _resolve(self, result: Answer | Exception | None) -> None:
        if not self.future.done():
            if isinstance(result, Exception):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)
        self.news.set()

    def _report(self, progress: Progress) -> None:
        self.progress = progress
        self.news.set()


@dataclass(frozen=True)
class _Post:
    request: SolveRequest
    waiter: _Waiter
    moment: float


class AsyncEngine:
    """Owns an engine and the one thread that steps it; the thread sleeps while there is no work.

    If the thread dies, every request that waits fails at once with EngineStopped naming the
    cause, and `healthy` turns False.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._wake = threading.Condition()
        self._posted: list[_Post] = []
        self._cancelled: list[str] = []
        self._drains: list[_Waiter] = []
        self._waiters: dict[str, _Waiter] = {}
        self._closed: EngineStopped | None = None
        self._stopping = False
        self._ended = False
        self._thread: threading.Thread | None = None

    @property
    def healthy(self) -> bool:
        """Whether the stepping thread runs and new requests are taken."""
        return self._closed is None and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the stepping thread; EngineStopped if it was started before."""
        if self._thread is not None:
            raise EngineStopped("the engine was already started; make a new one")
        self._thread = threading.Thread(target=self._run, name="eqr-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the stepping thread after its tick; requests that wait fail with EngineStopped."""
        with self._wake:
            self._closed = self._closed or EngineStopped("the engine was stopped")
            self._stopping = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    async def drain(self) -> None:
        """Take no new requests and wait until those that are there have ended."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        with self._wake:
            # Not `is_alive`: the thread lives on for a moment after it has told its waiters.
            if self._thread is None or self._ended or self._stopping:
                return
            self._closed = self._closed or EngineStopped("the engine is draining")
            self._drains.append(waiter)
            self._wake.notify()
        await waiter.future

    async def submit(self, request: SolveRequest) -> Answer:
        """Solve one request. Cancelling the awaiting task cancels the request.

        QueueFull, GridError, ModelError, EngineStopped; DeadlineExceeded when the deadline
        passed before any outer step.
        """
        request_id, waiter = self._post(request, streams=False)
        try:
            return _checked(await waiter.future)
        finally:
            if waiter.future.cancelled():
                self.cancel(request_id)

    async def stream(self, request: SolveRequest) -> AsyncGenerator[Progress | Answer, None]:
        """Solve one request, yielding its progress now and then, and the answer at the end.

        A slow reader misses progress and delays nobody. Closing the iterator early cancels the
        request. Raises as `submit` does.
        """
        request_id, waiter = self._post(request, streams=True)
        try:
            while not waiter.future.done():
                await waiter.news.wait()
                waiter.news.clear()
                progress, waiter.progress = waiter.progress, None
                if progress is not None and not waiter.future.done():
                    yield progress
            yield _checked(waiter.future.result())
        finally:
            if not waiter.future.done():
                waiter.future.cancel()
                self.cancel(request_id)

    def cancel(self, request_id: str) -> None:
        """End a request; whoever still waits for it gets what it has, marked `cancelled`."""
        with self._wake:
            self._cancelled.append(request_id)
            self._wake.notify()

    def _post(self, request: SolveRequest, streams: bool) -> tuple[str, _Waiter]:
        request = replace(request, id=request.id or uuid.uuid4().hex)
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future(), streams)
        with self._wake:
            if self._closed is not None:
                raise _again(self._closed)
            if self._thread is None:
                raise EngineStopped("the engine was not started")
            # The letter box of one tick: what the engine has no room for is refused in the next.
            if len(self._posted) >= self.engine.slots + self.engine.queue:
                raise QueueFull(f"{len(self._posted)} requests are already waiting")
            self._posted.append(_Post(request, waiter, time.monotonic()))
            self._wake.notify()
        return request.id, waiter

    def _run(self) -> None:
        try:
            while self._sleep_until_work():
                self._tick()
        except BaseException as error:
            cause = EngineStopped(f"the stepping thread died: {type(error).__name__}: {error}")
            cause.__cause__ = error
            self._close(cause)
        else:
            self._close(EngineStopped("the engine was stopped"))

    def _sleep_until_work(self) -> bool:
        with self._wake:
            while not (
                self._stopping
                or self._posted
                or self._cancelled
                or self._drains
                or self.engine.busy
            ):
                self._wake.wait()
            return not self._stopping

    def _tick(self) -> None:
        with self._wake:
            posted, self._posted = self._posted, []
            cancelled, self._cancelled = self._cancelled, []
        for post in posted:
            self._take(post)
        for request_id in cancelled:
            self.engine.cancel(request_id)
        for answer in self.engine.step():
            waiter = self._waiters.pop(answer.id, None)
            if waiter is not None:
                waiter.resolve(answer)
        self._report()
        with self._wake:
            if self._drains and not (self.engine.busy or self._posted):
                drained, self._drains = self._drains, []
                for waiter in drained:
                    waiter.resolve(None)

    def _take(self, post: _Post) -> None:
        if post.waiter.future.cancelled():
            return
        try:
            self.engine.submit(post.request, post.moment)
        except Exception as error:
            post.waiter.resolve(error)
        else:
            self._waiters[post.request.id] = post.waiter

    def _report(self) -> None:
        now = time.monotonic()
        for request_id, waiter in self._waiters.items():
            if waiter.streams and now - waiter.reported >= PROGRESS_SECONDS:
                progress = self.engine.progress(request_id)
                if progress is not None:
                    waiter.reported = now
                    waiter.report(progress)

    def _close(self, reason: EngineStopped) -> None:
        with self._wake:
            self._closed, self._ended = reason, True
            waiting = [*(post.waiter for post in self._posted), *self._waiters.values()]
            drains, self._posted, self._drains = self._drains, [], []
            self._waiters = {}
        for waiter in waiting:
            waiter.resolve(_again(reason))
        for waiter in drains:
            waiter.resolve(None)


def _again(reason: EngineStopped) -> EngineStopped:
    """A copy for one more waiter: a raised exception carries its own traceback."""
    copy = EngineStopped(str(reason))
    copy.__cause__ = reason.__cause__
    return copy


def _checked(answer: Answer | None) -> Answer:
    if answer is None:
        raise EngineStopped("the request ended without an answer")
    if not answer.answered and answer.finish_reason == "deadline":
        raise DeadlineExceeded("the deadline passed before the first outer step")
    return answer
