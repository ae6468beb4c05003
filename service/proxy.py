"""What a gRPC call passes in Serve's servers, before its method and after it.

Serve imports `add_services` or `add_services_here` by name, from its gRPC options, into every
ingress and into the proxy that takes calls while there is none. They do what only a server can: see
a deadline, a message that cannot be read, who calls, and a reader that falls behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from service.gate import REQUEST_ID, VALID_ID
from service.problems import Refusal
from service.rpc_context import END_KEY, kept_seconds
from service.rpc_errors import DETAILS_KEY, status_of
from service.schemas import new_id
from service.stubs.solver_pb2_grpc import add_SolverServicer_to_server

MAX_MESSAGE_BYTES = 1 << 26
"""Of a gRPC message, either way. The ingress has a tighter limit for requests."""

BEHIND_EVENTS = 64
"""Events of a gRPC stream that may wait for their reader in a proxy."""

LATE_SECONDS = 10.0
"""So much later than a solve's deadline an ingress must have answered; it allows solvers half."""

_UNREADABLE = object()
"""Stands for bytes that are no message of their type."""

_OF_SERVE = {
    grpc.StatusCode.INTERNAL: ("not_ready", "the ingress died or failed while it held the call"),
    grpc.StatusCode.UNAVAILABLE: ("not_ready", "no ingress takes calls"),
    grpc.StatusCode.NOT_FOUND: ("not_ready", "the application has not been started"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("queue_full", "too many calls wait for an ingress"),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("deadline_exceeded", "no answer before the deadline"),
}
"""Code and detail for each status that Serve itself gives; the ingress's come with details."""

Unary = Callable[[Any, Any], Awaitable[bytes]]
Stream = Callable[[Any, Any], AsyncIterator[bytes]]


def add_services(servicer: Any, server: Any) -> None:
    """Add eqr.v1.Solver and the health service to Serve's gRPC server."""
    _add(servicer, server, here=False)


def add_services_here(servicer: Any, server: Any) -> None:
    """The same, refusing callers from other machines: Serve's server listens on all interfaces."""
    _add(servicer, server, here=True)


def _add(servicer: Any, server: Any, here: bool) -> None:
    """Serve's server replaces every behaviour by what its `service_handler_factory` makes."""
    make = server.service_handler_factory

    def guarded(service_method: str, streaming_type: Any) -> Callable[..., Any]:
        behaviour = make(service_method=service_method, streaming_type=streaming_type)
        kind = streaming_type.value
        if kind == "unary_unary":
            return _guard_unary(behaviour, here)
        return _guard_stream(behaviour, here) if kind == "unary_stream" else behaviour

    server.service_handler_factory = guarded
    try:
        for add in (add_SolverServicer_to_server, add_HealthServicer_to_server):
            add(servicer, _Registrar(server))
    finally:
        server.service_handler_factory = make


class _Registrar:
    """What a generated `add_…_to_server` speaks to: makes the reading of messages lenient."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers come to the other method, by their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        lenient = {
            name: handler._replace(request_deserializer=_lenient(handler.request_deserializer))
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, lenient)
        self._server.add_generic_rpc_handlers((generic,))


def _lenient(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read_or_mark(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return _UNREADABLE

    return read_or_mark


def _guard_unary(behaviour: Unary, here: bool) -> Unary:
    async def unary(request: Any, context: Any) -> bytes:
        await _refuse_unfit(request, context, here)
        response = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(_patience(request, context)) as waiting:
                response = await behaviour(request, _Timed(context))
        if waiting.expired():
            await _abort(context, _LATE)
        _reword(context)
        return response

    return unary


def _guard_stream(behaviour: Stream, here: bool) -> Stream:
    async def stream(request: Any, context: Any) -> AsyncGenerator[bytes, None]:
        await _refuse_unfit(request, context, here)
        waiting: deque[bytes] = deque()
        news = asyncio.Event()
        timed = _Timed(context)
        patience = _patience(request, context)
        end = None if patience is None else asyncio.get_running_loop().time() + patience

        async def pump() -> None:
            """Serve cancels the solve when its behaviour is cancelled while it waits for it.

            It is not when it waits for the reader, so another task waits for the reader.
            """
            async for message in behaviour(request, timed):
                if not message:  # it carries the call's end; no event is empty
                    continue
                if len(waiting) < BEHIND_EVENTS:
                    waiting.append(message)
                    news.set()
                    continue
                behind.set()
                pumping.cancel()

        behind = asyncio.Event()
        pumping = asyncio.create_task(pump())
        pumping.add_done_callback(lambda _: news.set())
        try:
            while not behind.is_set() and (waiting or not pumping.done()):
                if waiting:
                    yield waiting.popleft()
                else:
                    news.clear()
                    async with asyncio.timeout_at(end):
                        await news.wait()
            if behind.is_set():
                await _abort(
                    context, Refusal("slow_reader", "the reader of the stream fell behind")
                )
            pumping.result()
            _reword(context)
        except TimeoutError:
            await _abort(context, _LATE)
        finally:
            pumping.cancel()
            await asyncio.wait({pumping})

    return stream


_LATE = Refusal("deadline_exceeded", "no ingress answered before the deadline")


def _patience(request: Any, context: Any) -> float | None:
    """Seconds until the proxy answers for an ingress that does not; None: it never does.

    An ingress that lives answers sooner: the solve's deadline is the earlier one, and the ingress
    keeps more of the client's for the way back.
    """
    given = context.time_remaining()
    if given is not None:
        left = float(given)
        return max(0.0, left - kept_seconds(left) / 2)
    solve = getattr(request, "request", request)
    budget = getattr(solve, "budget", None)
    if budget is None or not budget.HasField("deadline_ms"):
        return None
    return max(0.0, float(budget.deadline_ms) / 1e3) + LATE_SECONDS


async def _refuse_unfit(request: Any, context: Any, here: bool) -> None:
    """End the call where it must not or cannot go on to an ingress."""
    refusal = None
    if here and not _is_here(context.peer()):
        refusal = Refusal("not_local", "the service takes calls over loopback alone")
    elif request is _UNREADABLE:
        refusal = Refusal("bad_request", "the bytes are no message of the method's request type")
    if refusal is not None:
        await _abort(context, refusal)


def _reword(context: Any) -> None:
    """Say in the service's words what Serve itself ended a call with: a traceback, as it may be."""
    trailing = context.trailing_metadata()
    told = _OF_SERVE.get(context.code())
    if told is None or any(key == DETAILS_KEY for key, _ in trailing):
        return
    status = status_of(Refusal(*told), dict(trailing).get("request_id") or new_id())
    context.set_code(status.code)
    context.set_details(status.message)
    context.set_trailing_metadata((*trailing, *status.trailing))


async def _abort(context: Any, refusal: Refusal) -> None:
    given = dict(context.invocation_metadata()).get(REQUEST_ID.lower(), "")
    valid = isinstance(given, str) and VALID_ID.fullmatch(given)
    status = status_of(refusal, given if valid else new_id())
    await context.abort(status.code, status.message, tuple(status.trailing))


def _is_here(peer: str) -> bool:
    """Whether gRPC's `peer`, such as ``ipv4:127.0.0.1:50000``, is on this machine."""
    kind, _, address = unquote(peer).partition(":")
    return kind == "unix" or is_loopback(address.rpartition(":")[0].strip("[]"))


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, can be reached from its own machine alone."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class _Timed:
    """A call's context whose metadata holds the moment of the client's deadline.

    Serve asks for the peer when a call has ended, where grpc's own context reads freed memory.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._peer: str = context.peer()
        left = context.time_remaining()
        end = [] if left is None else [(END_KEY, repr(time.time() + left))]
        given = [pair for pair in context.invocation_metadata() if pair[0] != END_KEY]
        self._metadata: list[tuple[str, str | bytes]] = [*given, *end]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return self._metadata
