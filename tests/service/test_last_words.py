"""What the HTTP proxy's middleware says when an ingress does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from service.gate import TAKEN
from service.proxy_http import LastWords

JSON = [(b"content-type", b"application/json")]
PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8")]


def start(status: int, headers: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sent(
    *messages: dict[str, Any],
    path: str = "/solve",
    method: str = "POST",
    before: float = 0.0,
    between: float = 0.0,
) -> list[Any]:
    """What the client gets of an application that sends `messages` and ends.

    The middleware waits for the first one for a tenth of a second; the application sends it
    `before` seconds after its start, and the others `between` seconds after each other.
    """
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pause = before
        for message in messages:
            await asyncio.sleep(pause)
            await send(message)
            pause = between

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        found.append(message)

    wrapped = LastWords(app, seconds=0.1)
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": [(b"x-request-id", b"mine")],
    }
    asyncio.run(wrapped(scope, receive, send))
    return found


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start(503, PLAIN), body(b"Deployment is unavailable")],
        [start(404, PLAIN), body(b"Path not found")],
    ],
)
def test_what_serve_says_or_does_not_is_said_properly(messages: Sequence[dict[str, Any]]) -> None:
    first, *rest = sent(*messages)
    headers = dict(first["headers"])
    assert first["status"] == 503
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"] == b"mine"
    assert int(headers[b"retry-after"]) > 0
    problem = json.loads(b"".join(message["body"] for message in rest))
    assert (problem["code"], problem["request_id"]) == ("not_ready", "mine")


def test_nobody_waits_without_end_for_an_ingress() -> None:
    first, *_ = sent(start(200, JSON), body(b"{}"), before=60.0)
    assert first["status"] == 503


def test_an_ingress_that_has_the_request_may_take_its_time() -> None:
    answer = [start(200, JSON), body(b"{}")]
    assert sent({"type": TAKEN}, *answer, between=0.2) == answer


def test_a_stream_that_breaks_off_ends_with_an_error() -> None:
    *before, last = sent(start(200, EVENTS), body(b"event: progress\n\n", more=True))
    assert before == [start(200, EVENTS), body(b"event: progress\n\n", more=True)]
    assert last["body"].startswith(b"event: error\ndata: {")
    assert last["body"].endswith(b"\n\n")
    assert not last.get("more_body", False)


@pytest.mark.parametrize(
    ("path", "messages"),
    [
        ("/solve", [start(200, JSON), body(b"{}")]),
        ("/solve", [start(422, [(b"content-type", b"application/problem+json")]), body(b"{}")]),
        ("/metrics", [start(200, PLAIN), body(b"a", more=True), body(b"b")]),
        ("/solve/stream", [start(200, EVENTS), body(b"a", more=True), body(b"")]),
        ("/-/healthz", [start(503, PLAIN), body(b"no")]),
        ("/solve", [start(200, JSON), body(b"{", more=True)]),
    ],
)
def test_everything_else_is_passed_on(path: str, messages: Sequence[dict[str, Any]]) -> None:
    assert sent(*messages, path=path) == list(messages)


def test_a_preflight_that_is_refused_keeps_its_answer() -> None:
    refused = [start(400, PLAIN), body(b"Disallowed CORS origin")]
    assert sent(*refused, method="OPTIONS") == refused
