"""The proxy's middleware for server-sent events, without a proxy around it."""

from __future__ import annotations

import asyncio
from typing import Any

from service.proxy_http import STREAM_PATH, DropSlowReaders, http_middlewares


class Server:
    """What uvicorn is to an application: `send` waits while the reader does not read."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.sent.append(message)

    async def receive(self) -> Any:
        await asyncio.Event().wait()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Sends events until its reader has gone away."""
    leaving = asyncio.ensure_future(receive())
    while not leaving.done():
        await send({"type": "http.response.body", "more_body": True})
        await asyncio.sleep(0)
    assert leaving.result() == {"type": "http.disconnect"}


def test_a_reader_that_does_not_read_has_gone_away() -> None:
    async def call() -> Server:
        server = Server()
        scope = {"type": "http", "path": STREAM_PATH}
        await DropSlowReaders(app, seconds=0.05)(scope, server.receive, server.send)
        return server

    assert asyncio.run(call()).sent == []


def test_a_reader_that_reads_is_left_alone() -> None:
    async def call() -> int:
        server = Server()
        server.reads.set()
        scope = {"type": "http", "path": STREAM_PATH}
        streaming = asyncio.create_task(
            DropSlowReaders(app, seconds=0.05)(scope, server.receive, server.send)
        )
        await asyncio.sleep(0.2)
        assert not streaming.done()
        streaming.cancel()
        await asyncio.wait({streaming})
        return len(server.sent)

    assert asyncio.run(call()) > 10


def test_a_disconnect_comes_through() -> None:
    async def call() -> None:
        server = Server()
        server.reads.set()

        async def receive() -> Any:
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        scope = {"type": "http", "path": STREAM_PATH}
        await DropSlowReaders(app)(scope, receive, server.send)

    asyncio.run(call())


def test_other_paths_are_not_touched() -> None:
    async def call() -> list[Any]:
        given: list[Any] = []

        async def inner(scope: Any, receive: Any, send: Any) -> None:
            given.extend((receive, send))

        server = Server()
        await DropSlowReaders(inner)(
            {"type": "http", "path": "/solve"}, server.receive, server.send
        )
        assert given == [server.receive, server.send]
        return given

    assert len(asyncio.run(call())) == 2


def test_serve_gets_it_as_the_outermost_middleware() -> None:
    *_, last = http_middlewares()
    assert repr(last.cls) == repr(DropSlowReaders)
