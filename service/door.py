"""The shutter at the door: Serve's HTTP proxies refuse solves while the ingress says it is full.

A request that goes on to an ingress costs several times what a refusal here does, and under
overload most requests are refused.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.gate import REFUSED_BEFORE, REQUEST_ID, problem_response
from service.idempotency import HEADER as IDEMPOTENCY_KEY
from service.problems import Refusal
from service.schemas import new_id
from service.shutter import Ask, Shutter

SOLVE_PATHS = ("/solve", "/solve/stream")
MAX_BODY_BYTES = 1 << 16
"""Of a body that is looked into; a longer one goes on."""


class Door:
    """ASGI middleware. How many it refused stands in a header of the next request that goes on.

    Requests with an idempotency key always go on: there may be an answer for them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shutter = Shutter()
        self._refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asks = scope["method"] == "POST" and scope["path"] in SOLVE_PATHS
        if not asks or IDEMPOTENCY_KEY in headers:
            await self._app(self._telling(scope), receive, send)
            return
        first = await receive()
        ask = ask_of(first)
        if ask is None:
            await self._app(self._telling(scope), _again(first, receive), send)
            return
        try:
            self._shutter.check(ask)
        except Refusal as refusal:
            self._refused += 1
            request_id = headers.get(REQUEST_ID) or new_id()
            response = problem_response(refusal, request_id)
            response.headers[REQUEST_ID] = request_id
            await response(scope, receive, send)
            return
        streams = scope["path"] != SOLVE_PATHS[0]
        sending = self._watched(ask, send, streams)
        await self._app(self._telling(scope), _again(first, receive), sending)

    def _telling(self, scope: Scope) -> Scope:
        """`scope` with the header that tells how many were refused, and none of a client's."""
        name = REFUSED_BEFORE.encode()
        headers = [pair for pair in scope["headers"] if pair[0].lower() != name]
        if self._refused:
            headers.append((name, str(self._refused).encode()))
            self._refused = 0
        return {**scope, "headers": headers}

    def _watched(self, ask: Ask, send: Send, streams: bool) -> Send:
        """`send`, which learns from the response whether the solvers are full."""
        status, retry_after = 0, ""

        async def watched(message: Message) -> None:
            nonlocal status, retry_after
            if message["type"] == "http.response.start":
                status = message["status"]
                retry_after = Headers(raw=message["headers"]).get("retry-after", "")
                if status == 200 and not streams:
                    self._shutter.answered()
            elif message["type"] == "http.response.body" and status == 429:
                refusal = _refusal_in(message.get("body", b""), retry_after)
                if refusal is not None:
                    self._shutter.refused(ask, refusal)
            await send(message)

        return watched


def ask_of(message: Message) -> Ask | None:
    """What a solve's body asks for; None where that is not for the proxy to say."""
    body = message.get("body", b"")
    if message.get("more_body", False) or not 0 < len(body) <= MAX_BODY_BYTES:
        return None
    with suppress(ValueError, RecursionError):
        fields = json.loads(body)
        budget = fields.get("budget", {}) if isinstance(fields, dict) else None
        if isinstance(budget, dict):
            priority, deadline = fields.get("priority", 0), budget.get("deadline_ms")
            if _is_number(priority) and (deadline is None or _is_number(deadline)):
                return Ask(priority, None if deadline is None else deadline / 1e3)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refusal_in(body: bytes, retry_after: str) -> Refusal | None:
    with suppress(ValueError):
        problem = json.loads(body)
        if isinstance(problem, dict) and problem.get("code") == "queue_full":
            headers = {"Retry-After": retry_after} if retry_after else {}
            return Refusal("queue_full", str(problem.get("detail", "")), headers=headers)
    return None


def _again(first: Message, receive: Receive) -> Receive:
    """What `receive` gives, `first` before it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first

    return again
