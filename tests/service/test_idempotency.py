"""Repeated POSTs through the middleware, over a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from service import idempotency
from service.gate import Gate
from service.idempotency import Idempotency, IdempotencyGate
from service.store import Store
from tests.service.stores import until

KEY = {"Idempotency-Key": "the-key"}


class Service:
    """An application that counts what reaches it; `answer` makes its responses."""

    def __init__(self, store: Store, answer: Callable[[int, Request], Awaitable[Response]]) -> None:
        self.calls = 0
        self._answer = answer
        middleware = [
            Middleware(Gate, max_body_bytes=1 << 22, on_reject=lambda _: None),
            Middleware(_Owner),
            Middleware(IdempotencyGate, idempotency=Idempotency(store, 60.0)),
        ]
        routes = [Route(path, self._serve, methods=["GET", "POST"]) for path in ("/a", "/b")]
        transport = httpx.ASGITransport(Starlette(routes=routes, middleware=middleware))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://here")

    async def _serve(self, request: Request) -> Response:
        self.calls += 1
        return await self._answer(self.calls, request)


class _Owner:
    """In place of the Guard: the header X-Owner is the owner."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["state"]["owner"] = dict(scope["headers"]).get(b"x-owner", b"").decode()
        await self._app(scope, receive, send)


async def number(count: int, request: Request) -> Response:
    document = {
        "count": count,
        "of": request.state.repetition,
        "body": (await request.body()).decode(),
    }
    return JSONResponse(document, 202, {"Location": f"/{count}", "X-Other": "no"})


Scene = Callable[[Service], Awaitable[None]]


def play(
    url: str, scene: Scene, answer: Callable[[int, Request], Awaitable[Response]] = number
) -> int:
    """Calls that reached the application."""

    async def on_stage() -> int:
        store = Store(url)
        service = Service(store, answer)
        async with service.http:
            await scene(service)
        await store.close()
        return service.calls

    return asyncio.run(on_stage())


def test_a_repetition_gets_the_first_answer(store_url: str) -> None:
    async def scene(service: Service) -> None:
        first = await service.http.post("/a", content="x", headers=KEY)
        again = await service.http.post("/a", content="x", headers=KEY)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.content == again.content
        assert again.headers["location"] == "/1"
        assert again.headers["content-type"] == "application/json"
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert first.headers["x-request-id"] != again.headers["x-request-id"]
        assert len(first.json()["of"]) == 64

    assert play(store_url, scene) == 1
    with Redis.from_url(store_url) as redis:
        (key,) = redis.keys("eqr:once:*")
        assert 50_000 < redis.pttl(key) <= 60_000


def test_what_is_another_request(store_url: str) -> None:
    async def scene(service: Service) -> None:
        post = service.http.post
        assert (await post("/a", content="x", headers=KEY)).json()["count"] == 1
        for path, content in (("/a", "y"), ("/b", "x"), ("/a?q", "x"), ("/a", "")):
            conflict = await post(path, content=content, headers=KEY)
            assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
        others: list[dict[str, str]] = [{}, {}, {"Idempotency-Key": "b"}, {**KEY, "X-Owner": "bob"}]
        for count, headers in enumerate(others, start=2):
            assert (await post("/a", content="x", headers=headers)).json()["count"] == count
        got = await service.http.get("/a", headers=KEY)
        assert (got.json()["count"], got.json()["of"]) == (6, "")

    assert play(store_url, scene) == 6


@pytest.mark.parametrize("key", ["", "ä", "a b", "x" * 256])
def test_a_key_that_cannot_be_used(store_url: str, key: str) -> None:
    async def scene(service: Service) -> None:
        headers = {b"Idempotency-Key": key.encode()}
        response = await service.http.post("/a", headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_idempotency_key")

    assert play(store_url, scene) == 0


def test_a_twin_waits_for_the_first(store_url: str) -> None:
    go = asyncio.Event()

    async def slow(count: int, request: Request) -> Response:
        await go.wait()
        return await number(count, request)

    async def scene(service: Service) -> None:
        asked = [
            asyncio.create_task(service.http.post("/a", content="x", headers=KEY)) for _ in range(8)
        ]
        await until(lambda: _called(service, 1))
        await asyncio.sleep(0.1)
        go.set()
        answers = [one.json()["count"] for one in await asyncio.gather(*asked)]
        assert answers == [1] * 8

    assert play(store_url, scene, slow) == 1


async def _called(service: Service, times: int) -> bool:
    return service.calls >= times


def test_when_the_first_goes_away_the_twin_takes_over(store_url: str) -> None:
    async def first_never(count: int, request: Request) -> Response:
        if count == 1:
            await asyncio.Event().wait()
        return await number(count, request)

    async def scene(service: Service) -> None:
        first = asyncio.create_task(service.http.post("/a", content="x", headers=KEY))
        await until(lambda: _called(service, 1))
        twin = asyncio.create_task(service.http.post("/a", content="x", headers=KEY))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await twin).json()["count"] == 2

    assert play(store_url, scene, first_never) == 2


def test_a_dead_process_holds_its_key_no_longer_than_the_lease(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LEASE_SECONDS", 0.3)

    async def scene(service: Service) -> None:
        # It outlives its lease, because it is renewed; when that stops, the key is free.
        store = Store(store_url)
        manager = Idempotency(store, 60.0)
        name, fingerprint = "n", "f"
        async with manager.claim(name, fingerprint):
            await asyncio.sleep(0.7)
            with Redis.from_url(store_url) as redis:
                assert redis.exists("eqr:once:n")
        with Redis.from_url(store_url) as redis:
            assert not redis.exists("eqr:once:n")
            redis.hset("eqr:once:n", mapping={"print": fingerprint, "holder": "dead"})
            redis.pexpire("eqr:once:n", 200)
        async with manager.claim(name, fingerprint) as claim:
            assert isinstance(claim, idempotency.Claim)
        await store.close()

    play(store_url, scene)


@pytest.mark.parametrize(("status", "kept"), [(422, True), (404, True), (429, False), (503, False)])
def test_what_may_be_otherwise_later_is_not_kept(store_url: str, status: int, kept: bool) -> None:
    async def answer(count: int, request: Request) -> Response:
        return JSONResponse({"count": count}, status)

    async def scene(service: Service) -> None:
        counts = [
            (await service.http.post("/a", content="x", headers=KEY)).json()["count"]
            for _ in range(2)
        ]
        assert counts == ([1, 1] if kept else [1, 2])

    play(store_url, scene, answer)


@pytest.mark.parametrize(("last", "kept"), [("result", True), ("error", False)])
def test_a_stream_passes_and_is_kept_with_its_result(store_url: str, last: str, kept: bool) -> None:
    async def answer(count: int, request: Request) -> Response:
        async def events() -> Any:
            yield f"event: progress\ndata: {count}\n\n"
            yield f"event: {last}\ndata: {count}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def scene(service: Service) -> None:
        texts = [(await service.http.post("/a", content="x", headers=KEY)).text for _ in range(2)]
        assert (texts[0] == texts[1]) == kept
        assert f"event: {last}" in texts[1]

    play(store_url, scene, answer)


def test_an_answer_too_large_to_keep_still_comes_whole(store_url: str) -> None:
    async def answer(count: int, request: Request) -> Response:
        return Response(f"{count}".encode() * (idempotency.MAX_BYTES + 1))

    async def scene(service: Service) -> None:
        for first in (b"1", b"2"):
            got = await service.http.post("/a", content="x", headers=KEY)
            assert got.content == first * (idempotency.MAX_BYTES + 1)

    play(store_url, scene, answer)


def test_a_key_needs_the_store_and_nothing_else_does(tmp_path: Path) -> None:
    async def scene(service: Service) -> None:
        refused = await service.http.post("/a", content="x", headers=KEY)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert refused.headers["retry-after"] == "2"
        assert (await service.http.post("/a", content="x")).status_code == 202

    assert play(f"unix://{tmp_path / 'nobody'}", scene) == 1
