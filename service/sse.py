"""Server-sent events: a stream of the gateway as the body of a response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

from pydantic import BaseModel

from service.problems import Refusal, refusal_of
from service.schemas import ProgressAnswer, SolveAnswer

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
FIRST_SECONDS = 1.0
"""So long a refusal may take to come as a problem document with its own status."""
ALIVE_SECONDS = 15.0
"""A comment goes out after this much silence, so that nothing on the way cuts the connection."""

Events = AsyncGenerator[ProgressAnswer | SolveAnswer, None]

_log = logging.getLogger("ray.serve")


class EventStream:
    """Events of one solve. `open` it before the response starts, then send `body`."""

    def __init__(self, events: Events, request_id: str, on_reject: Callable[[str], None]) -> None:
        self._events = events
        self._request_id = request_id
        self._on_reject = on_reject
        self._next: asyncio.Task[ProgressAnswer | SolveAnswer] | None = None

    async def open(self) -> None:
        """Wait a moment for the first event; raises what the solve raises until then."""
        try:
            if await self._arrives(FIRST_SECONDS) and self._next is not None:
                error = self._next.exception()
                if error is not None:
                    raise error
        except BaseException:
            self._leave()
            raise

    async def body(self) -> AsyncIterator[bytes]:
        """The events as bytes; the last one is `result` or `error`. Closing it ends the solve."""
        try:
            while True:
                if not await self._arrives(ALIVE_SECONDS):
                    yield b": the solve goes on\n\n"
                    continue
                arrived, self._next = self._next, None
                if arrived is None:
                    return
                event = arrived.result()
                last = isinstance(event, SolveAnswer)
                yield event_bytes("result" if last else "progress", event)
                if last:
                    return
        except Exception as error:
            refusal = self._problem(error)
            self._on_reject(refusal.code)
            yield event_bytes("error", refusal.document(self._request_id))
        finally:
            self._leave()

    async def _arrives(self, seconds: float) -> bool:
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        done, _ = await asyncio.wait({self._next}, timeout=seconds)
        return bool(done)

    def _problem(self, error: Exception) -> Refusal:
        refusal = refusal_of(error)
        if refusal is None:
            _log.error("stream %s failed", self._request_id, exc_info=error)
            refusal = Refusal("internal_error", "the service failed; the fault is in its log")
        return refusal

    def _leave(self) -> None:
        """End the solve. Nothing is awaited here: the task that calls may be cancelled itself."""
        closing = asyncio.ensure_future(_close(self._next, self._events))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
"""An event loop holds its tasks weakly."""


async def _close(
    pending: asyncio.Task[ProgressAnswer | SolveAnswer] | None, events: Events
) -> None:
    if pending is not None:
        pending.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await pending
    await events.aclose()


def event_bytes(name: str, data: BaseModel) -> bytes:
    """One event as it goes over the wire."""
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()
