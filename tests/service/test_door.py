"""The shutter in the HTTP proxies, without a proxy around it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from service.door import Door, ask_of
from service.gate import REFUSED_BEFORE, problem_response
from service.problems import Refusal
from service.shutter import ENOUGH, Ask

FULL = Refusal("queue_full", "full", headers={"Retry-After": "7"})


class Ingress:
    """Answers as it is told, and keeps what comes."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = FULL
        self.bodies: list[bytes] = []
        self.refused_before: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        names = REFUSED_BEFORE.encode()
        self.refused_before += [v.decode() for k, v in scope["headers"] if k == names]
        if self.refusal is not None:
            await problem_response(self.refusal, "id")(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.fixture
def ingress() -> Ingress:
    return Ingress()


@pytest.fixture
def door(ingress: Ingress) -> Door:
    return Door(ingress)


def post(door: Door, *, path: str = "/solve", parts: int = 1, **given: Any) -> tuple[int, Any]:
    """Status and headers of a response; keyword arguments are the body or headers with a dash."""
    headers = [(b"x-request-id", b"mine")]
    headers += [(k.replace("_", "-").encode(), v.encode()) for k, v in given.pop("with_", ())]
    body = json.dumps({"grid": "1", **given}).encode()
    step = -(-len(body) // parts)
    pieces = [body[i : i + step] for i in range(0, len(body), step)]
    messages = [
        {"type": "http.request", "body": piece, "more_body": number + 1 < len(pieces)}
        for number, piece in enumerate(pieces)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(door(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def shut(door: Door, **body: Any) -> None:
    for _ in range(ENOUGH):
        post(door, **body)


def test_a_full_service_is_not_asked_again_for_a_moment(door: Door, ingress: Ingress) -> None:
    shut(door)
    status, headers = post(door)
    assert len(ingress.bodies) == ENOUGH
    assert (status, headers[b"retry-after"], headers[b"x-request-id"]) == (429, b"7", b"mine")
    post(door)
    # What is more urgent goes on, and tells how many did not.
    post(door, priority=-1)
    assert json.loads(ingress.bodies[-1]) == {"grid": "1", "priority": -1}
    assert ingress.refused_before == ["2"]
    post(door)
    post(door, path="/metrics")
    assert ingress.refused_before == ["2", "1"]


@pytest.mark.parametrize(
    "other",
    [
        {"budget": {"deadline_ms": 3000}},
        {"path": "/jobs"},
        {"path": "/solve/batch"},
        {"with_": [("idempotency_key", "a")]},
        {"parts": 3},
        {"budget": 3},
        {"priority": "high"},
    ],
)
def test_what_is_not_like_the_refused_goes_on(
    door: Door, ingress: Ingress, other: dict[str, Any]
) -> None:
    shut(door)
    post(door, **other)
    assert len(ingress.bodies) == ENOUGH + 1
    assert json.loads(ingress.bodies[-1])["grid"] == "1"


def test_only_a_full_queue_shuts_it_and_an_answer_opens_it(door: Door, ingress: Ingress) -> None:
    ingress.refusal = Refusal("rate_limited", "slower")
    shut(door)
    ingress.refusal = FULL
    post(door)
    post(door)
    ingress.refusal = None
    post(door)
    ingress.refusal = FULL
    post(door)
    post(door)
    assert len(ingress.bodies) == ENOUGH + 5


def test_a_client_cannot_tell_of_refusals(door: Door, ingress: Ingress) -> None:
    post(door, with_=[(REFUSED_BEFORE, "99")])
    post(door, path="/jobs", with_=[(REFUSED_BEFORE, "99")])
    assert ingress.refused_before == []


@pytest.mark.parametrize(
    ("body", "ask"),
    [
        (b'{"grid": 1}', Ask()),
        (b'{"priority": 3, "budget": {"deadline_ms": 500}}', Ask(3, 0.5)),
        (b"", None),
        (b"{", None),
        (b"[1]", None),
        (b"[" * 60_000, None),
        (b"\xff\xfe", None),
        (b'{"priority": true}', None),
        (b'{"budget": {"deadline_ms": "1"}}', None),
        (b'{"grid": "' + b"1" * 70_000 + b'"}', None),
    ],
)
def test_what_a_body_asks_for(body: bytes, ask: Ask | None) -> None:
    assert ask_of({"type": "http.request", "body": body}) == ask
