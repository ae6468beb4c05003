"""How calls travel: REST or gRPC, as the address says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, Protocol

from service.client.calls import Answer, Call
from service.client.errors import RequestUnsendable
from service.client.events import Event

GRPC = ("grpc://", "grpcs://")


class Transport(Protocol):
    """Sends one attempt of a call. Errors are `ClientError`s."""

    def send(self, call: Call[Answer], seconds: float | None) -> Answer:
        """The answer; at most `seconds`."""

    def stream(self, call: Call[Any], seconds: float | None) -> Generator[Event, None, None]:
        """The events as they come; the last one is the answer. Closing it ends the solve."""

    def close(self) -> None:
        """Close the connections."""


class AsyncTransport(Protocol):
    """The same for asyncio."""

    async def send(self, call: Call[Answer], seconds: float | None) -> Answer:
        """The answer; at most `seconds`."""

    def stream(self, call: Call[Any], seconds: float | None) -> AsyncGenerator[Event, None]:
        """The events as they come; the last one is the answer. Closing it ends the solve."""

    async def close(self) -> None:
        """Close the connections."""


def open_transport(server: str, api_key: str | None) -> Transport:
    """The way to `server`; what the other way needs is not imported. RequestUnsendable."""
    _check_key(api_key)
    if server.startswith(GRPC):
        from service.client.rpc import RpcTransport

        return RpcTransport(server, api_key)
    from service.client.rest import RestTransport

    return RestTransport(server, api_key)


def open_async_transport(server: str, api_key: str | None) -> AsyncTransport:
    """The same for asyncio."""
    _check_key(api_key)
    if server.startswith(GRPC):
        from service.client.rpc import AsyncRpcTransport

        return AsyncRpcTransport(server, api_key)
    from service.client.rest import AsyncRestTransport

    return AsyncRestTransport(server, api_key)


def _check_key(api_key: str | None) -> None:
    """A line break in a header would begin another one; the message does not show the key."""
    if api_key is not None and not all("!" <= char <= "~" for char in api_key or " "):
        raise RequestUnsendable("api_key must be visible ASCII characters")
