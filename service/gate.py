"""What every HTTP request passes before its route: its id, its size, and a last net for errors."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from time import monotonic
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import MEDIA_TYPE, Refusal, refusal_of
from service.schemas import new_id

REQUEST_ID = "X-Request-Id"

VALID_ID = re.compile(r"[!-~]{1,128}")

MAX_PATH = 200
TAKEN = "eqr.taken"
"""Type of a message to the proxy, before the response starts: an ingress is at work."""
TAKEN_SECONDS = 2.0
"""Most responses start before, and then it is not sent."""

UNTOLD = ("/health/", "/metrics")
"""Asked every few seconds; logged at debug."""

_log = logging.getLogger("ray.serve")


class Gate:
    """ASGI middleware. Bodies are read here, up to the limit, before any route sees them.

    A given request id must be 1 to 128 visible ASCII characters; without one, one is made. It
    stands in ``scope["state"]["request_id"]``. Serve's server sees to it that a request has one and
    echoes it, so only an id that was made here is added to the response.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, on_reject: Callable[[str], None]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._on_reject = on_reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID)
        valid = given is not None and VALID_ID.fullmatch(given) is not None
        request_id = given if given is not None and valid else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        started, status, began = False, 499, monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal started, status
            telling.cancel()
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                if given is None:
                    MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        telling = asyncio.get_running_loop().call_later(TAKEN_SECONDS, _tell_taken, send)
        try:
            if given is not None and not valid:
                raise Refusal(
                    "invalid_request_id", "X-Request-Id must be 1 to 128 visible ASCII characters"
                )
            body = await self._read(headers, receive)
            await self._app(scope, replay_body(body, receive), send_with_id)
        except ClientDisconnect:
            return
        except Exception as error:
            if started:
                raise
            refusal = refusal_of(error)
            if refusal is None:
                _log.exception("request %s failed", request_id)
                refusal = Refusal("internal_error", "the service failed; the fault is in its log")
            await self._refuse(refusal, request_id)(scope, receive, send_with_id)
        finally:
            telling.cancel()
            _log_access(scope, status, monotonic() - began)

    def _refuse(self, refusal: Refusal, request_id: str) -> Response:
        self._on_reject(refusal.code)
        return problem_response(refusal, request_id)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body_bytes:
            raise self._too_large(f"{int(declared)} bytes")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large("more")
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self, found: str) -> Refusal:
        limit = self._max_body_bytes
        return Refusal("body_too_large", f"the body has {found}; the limit is {limit} bytes")


def _tell_taken(send: Send) -> None:
    told = asyncio.ensure_future(send({"type": TAKEN}))
    _telling.add(told)
    told.add_done_callback(_telling.discard)


_telling: set[asyncio.Future[None]] = set()
"""An event loop holds its tasks weakly."""


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    """One line a request, with no header, query or body; 499 is a client that went away."""
    path = scope["path"]
    fields = {
        "method": scope["method"],
        "path": path[:MAX_PATH],
        "status": status,
        "seconds": round(seconds, 4),
        "owner": scope["state"].get("owner", ""),
        "request": scope["state"]["request_id"],
    }
    level = logging.DEBUG if path.startswith(UNTOLD) else logging.INFO
    _log.log(level, "request", extra=fields)


def problem_response(refusal: Refusal, request_id: str) -> Response:
    """The problem document of `refusal` as a response."""
    return Response(
        refusal.document(request_id).model_dump_json(),
        status_code=refusal.status,
        media_type=MEDIA_TYPE,
        headers=refusal.headers,
    )


def replay_body(body: bytes, receive: Receive) -> Receive:
    """`body` once, then whatever comes: a disconnect."""
    sent = False

    async def replay() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return dict(await receive())
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
