"""What runs in Serve's HTTP proxies: server-sent events leave out readers that fall behind.

Serve imports `http_middlewares` by name, from RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STREAM_PATH = "/solve/stream"
BEHIND_SECONDS = 30.0
"""So long may an event wait for its reader in a proxy."""


def http_middlewares() -> list[Middleware]:
    """For Serve's HTTP proxies."""
    return [Middleware(DropSlowReaders)]


class DropSlowReaders:
    """ASGI middleware: a reader that leaves an event waiting has gone away, for all we care.

    The server holds up `send` while more than its buffer waits for the network.
    """

    def __init__(self, app: ASGIApp, seconds: float = BEHIND_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != STREAM_PATH:
            await self._app(scope, receive, send)
            return
        gone = asyncio.Event()

        async def send_in_time(message: Message) -> None:
            if gone.is_set():
                return
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                gone.set()

        async def receive_or_leave() -> Message:
            leaving = asyncio.create_task(gone.wait())
            receiving = asyncio.ensure_future(receive())
            try:
                await asyncio.wait({leaving, receiving}, return_when=asyncio.FIRST_COMPLETED)
                return {"type": "http.disconnect"} if gone.is_set() else receiving.result()
            finally:
                for task in (leaving, receiving):
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await task

        await self._app(scope, receive_or_leave, send_in_time)
