"""What an HTTP request passes in Serve's servers: every ingress's, and the proxy's before them.

Readers that fall behind are left out, and where an ingress dies under a request its client is told
so in the service's words.

Serve imports `http_middlewares` by name, from RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gate import REQUEST_ID, TAKEN, problem_response
from service.problems import Refusal
from service.schemas import new_id
from service.sse import MEDIA_TYPE, event_bytes

STREAM_PATH = "/solve/stream"
OF_SERVE = "/-/"
UNTAKEN_SECONDS = 10.0
"""So long may a request wait until an ingress tells that it has it."""
BEHIND_SECONDS = 30.0
"""So long may an event wait for its reader in a proxy."""


_LOST = Refusal("not_ready", "no ingress took the request, or the one that had it died")


def http_middlewares() -> list[Middleware]:
    """For Serve's HTTP proxies."""
    # The last one is the outermost; it also drops a reader that does not read its last words.
    return [Middleware(LastWords), Middleware(DropSlowReaders)]


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


class LastWords:
    """ASGI middleware: a problem document for what Serve ends with words of its own, or with none.

    That is so when the ingress dies, and while there is none: Serve would let requests wait for the
    next one without end. A stream that has begun ends with an `error` event. Serve's own paths keep
    their answers, and so do preflights (OPTIONS), which the ingress answers in plain text.
    """

    def __init__(self, app: ASGIApp, seconds: float = UNTAKEN_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["type"] != "http" or scope["path"].startswith(OF_SERVE)
        if own or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        begun, ended, streams = False, False, False

        async def send_own(message: Message) -> None:
            nonlocal begun, ended, streams
            if not waiting.expired():
                waiting.reschedule(None)
            if message["type"] == TAKEN:
                return
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if message["status"] >= 400 and kind.startswith("text/plain"):
                    return
                begun, streams = True, kind.startswith(MEDIA_TYPE)
            elif not begun:
                return
            else:
                ended = not message.get("more_body", False)
            await send(message)

        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds) as waiting:
                await self._app(scope, receive, send_own)
        request_id = Headers(scope=scope).get(REQUEST_ID) or new_id()
        if not begun:
            response = problem_response(_LOST, request_id)
            response.headers[REQUEST_ID] = request_id
            await response(scope, receive, send)
        elif streams and not ended:
            body = event_bytes("error", _LOST.document(request_id))
            await send({"type": "http.response.body", "body": body})
