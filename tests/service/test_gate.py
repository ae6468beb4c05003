"""The middleware around a real ASGI application, without Ray."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from eqr_core.errors import EngineStopped
from service.codes import TITLES
from service.gate import Gate
from service.problems import Refusal, refusal_of

LIMIT = 1024


async def echo(request: Request) -> Response:
    return PlainTextResponse(f"{len(await request.body())} {request.state.request_id}")


async def broken(request: Request) -> Response:
    raise RuntimeError("a secret of the inside")


def call(method: str, path: str, **options: Any) -> tuple[httpx.Response, list[str]]:
    rejected: list[str] = []
    routes = [Route("/echo", echo, methods=["POST"]), Route("/broken", broken)]
    gate = Middleware(Gate, max_body_bytes=LIMIT, on_reject=rejected.append)
    app = Starlette(routes=routes, middleware=[gate])

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask()), rejected


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_body_within_the_limit_passes_whole(size: int) -> None:
    response, rejected = call("POST", "/echo", content=b"x" * size)
    assert response.text == f"{size} {response.headers['x-request-id']}"
    assert rejected == []


def test_a_body_over_the_limit_is_refused() -> None:
    response, rejected = call("POST", "/echo", content=b"x" * (LIMIT + 1))
    assert (response.status_code, rejected) == (413, ["body_too_large"])


def test_a_body_without_length_is_counted() -> None:
    async def pieces() -> Any:
        for _ in range(10):
            yield b"x" * 500

    response, rejected = call("POST", "/echo", content=pieces())
    assert (response.status_code, rejected) == (413, ["body_too_large"])


def test_what_nobody_foresaw_is_a_500_that_tells_nothing() -> None:
    response, rejected = call("GET", "/broken")
    assert (response.status_code, rejected) == (500, ["internal_error"])
    assert response.json()["code"] == "internal_error"
    assert "secret" not in response.text


def test_every_code_makes_a_document() -> None:
    for code, (status, title) in TITLES.items():
        refusal = Refusal(code, "so it is")
        document = refusal.document("an id")
        assert (document.status, document.title, document.code) == (status, title, code)
        assert refusal_of(refusal) is refusal
        assert ("Retry-After" in refusal.headers) == (status in (429, 503))
    assert refusal_of(RuntimeError("unforeseen")) is None


@pytest.mark.parametrize("error", [EngineStopped("a secret"), TimeoutError("a secret")])
def test_what_happened_inside_is_not_told(error: Exception) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert refusal.detail
    assert "secret" not in refusal.detail
