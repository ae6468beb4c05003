"""gRPC over real channels to the server that Serve's proxy runs, without Serve behind it.

Between the server and the methods of the ingress stands what Serve's proxy and replica do: a
context of its own kind, and its status set on the call after each message. tests/e2e has the rest.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ray.serve._private.grpc_util import gRPCGenericServer
from ray.serve.grpc_util import RayServegRPCContext

from service import proxy
from service.metrics import IngressMetrics
from service.orders import Order, order_of
from service.problems import Refusal
from service.proxy import BEHIND_EVENTS, add_services_here, is_loopback
from service.rpc import SolverRpc
from service.rpc_errors import DETAILS_KEY
from service.rpc_health import HealthRpc
from service.schemas import ModelAnswer, ProgressAnswer, SolveAnswer, SolveBody
from service.settings import Settings
from service.stubs import solver_pb2 as pb
from service.stubs.solver_pb2_grpc import SolverStub
from tests.service.test_messages import ANSWER

FOUR = "1...4...2..3...."


class Desk:
    """In the desk's place and its gateway's: keeps the orders, and answers as it is told."""

    def __init__(self) -> None:
        self.gateway = self
        self.orders: list[Order] = []
        self.draining = False
        self.error: Exception | None = None
        self.endless = False
        self.silent = False
        self.fails = ""
        self.told = 0
        self.rejected: Callable[[], float] = lambda: 0.0
        self.left = asyncio.Event()

    def owner_of(self, headers: Mapping[str, str]) -> str:
        if headers.get("x-api-key") == "wrong":
            raise Refusal("unauthenticated", "the key is not known")
        return headers.get("x-api-key", "")

    async def order(self, body: SolveBody, owner: str) -> Order:
        return replace(order_of(body, 60_000), owner=owner)

    async def solve(self, order: Order) -> SolveAnswer:
        self.orders.append(order)
        if self.error is not None:
            raise self.error
        try:
            while self.endless:
                await asyncio.sleep(1)
        finally:
            self.left.set()
        return ANSWER

    async def stream(self, order: Order) -> AsyncGenerator[ProgressAnswer | SolveAnswer, None]:
        self.orders.append(order)
        progress = ProgressAnswer(iteration=1, residual=0.5, grid=[[1]], text="1" * 10_000)
        try:
            while self.silent:
                await asyncio.sleep(1)
            yield progress
            if self.error is not None:
                raise self.error
            while self.endless:
                self.told += 1
                yield progress
                await asyncio.sleep(0.001)
            yield ANSWER
        finally:
            self.left.set()

    async def models(self) -> list[ModelAnswer]:
        return []

    async def check_ready(self) -> None:
        if self.draining:
            raise Refusal("draining", "the service is shutting down")


class Ingress(SolverRpc, HealthRpc):
    def __init__(self, desk: Any) -> None:
        self.desk = self._desk = desk
        self._settings = Settings(max_body_bytes=1024, cpus=1)
        self._metrics = IngressMetrics()
        desk.rejected = self.rejected

    def rejected(self) -> float:
        metrics = self._metrics.collect()
        return sum(
            one.value
            for metric in metrics
            for one in metric.samples
            if one.name == "eqr_requests_rejected_total"
        )


def served(ingress: Ingress, service_method: str, streaming_type: Any) -> Callable[..., Any]:
    """What Serve's proxy makes of the method."""
    name = service_method.rpartition("/")[2]
    method = getattr(ingress, name, None)

    async def unary(request: Any, context: Any) -> bytes:
        if method is None or name == ingress.desk.fails:
            context.set_code(grpc.StatusCode.INTERNAL)
            context.set_details("Traceback (most recent call last): …")
            return b""
        carried = RayServegRPCContext(context)
        response = await method(request, grpc_context=carried)
        carried._set_on_grpc_context(context)
        return bytes(response.SerializeToString())

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        carried = RayServegRPCContext(context)
        messages = method(request, grpc_context=carried)  # type: ignore[misc]
        try:
            async for message in messages:
                carried._set_on_grpc_context(context)
                yield message.SerializeToString()
        except asyncio.CancelledError:
            await messages.aclose()

    return unary if streaming_type.value == "unary_unary" else stream


@asynccontextmanager
async def calling(desk: Desk) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server with the service's methods over `desk`."""
    ingress = Ingress(desk)
    server = gRPCGenericServer(
        lambda service_method, streaming_type: served(ingress, service_method, streaming_type)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    add_services_here(Mock(), server)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def run(desk_and_call: Callable[[Desk, Any], Awaitable[Any]], **wishes: Any) -> Any:
    async def all_of_it() -> Any:
        desk = Desk()
        for name, value in wishes.items():
            setattr(desk, name, value)
        async with calling(desk) as channel:
            return await desk_and_call(desk, channel)

    return asyncio.run(all_of_it())


def status_in(error: grpc.aio.AioRpcError) -> Status:
    return Status.FromString(dict(error.trailing_metadata())[DETAILS_KEY])


def info_in(error: grpc.aio.AioRpcError) -> ErrorInfo:
    info = ErrorInfo()
    assert status_in(error).details[0].Unpack(info)
    return info


async def refused(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def read_all(call: Any) -> list[pb.SolveStreamResponse]:
    return [message async for message in call]


def test_a_solve_is_answered_and_its_id_echoed() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        solving = SolverStub(channel).Solve(
            pb.SolveRequest(grid=FOUR, seed=3), metadata=[("x-request-id", "mine")]
        )
        return await solving, dict(await solving.trailing_metadata()), desk.orders

    response, trailing, (order,) = run(call)
    assert response.text == ANSWER.text
    assert trailing["x-request-id"] == "mine"
    assert order.request.seed == 3
    assert 59_000 < order.left_seconds * 1e3 <= 60_000


@pytest.mark.parametrize(
    ("request_", "metadata", "status", "code", "fields"),
    [
        (pb.SolveRequest(grid="1"), (), "INVALID_ARGUMENT", "invalid_grid", ["grid"]),
        (
            pb.SolveRequest(grid=FOUR, budget=pb.Budget(depth=0)),
            (),
            "INVALID_ARGUMENT",
            "invalid_budget",
            ["budget.depth"],
        ),
        (
            pb.SolveRequest(grid=FOUR, noise=math.nan),
            (),
            "INVALID_ARGUMENT",
            "invalid_request",
            ["noise"],
        ),
        (pb.SolveRequest(grid="." * 2000), (), "INVALID_ARGUMENT", "body_too_large", []),
        (
            pb.SolveRequest(grid=FOUR),
            [("x-request-id", "not good")],
            "INVALID_ARGUMENT",
            "invalid_request_id",
            [],
        ),
    ],
)
def test_a_bad_request_is_refused_with_details(
    request_: pb.SolveRequest, metadata: Any, status: str, code: str, fields: list[str]
) -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stub = SolverStub(channel)
        unary = await refused(stub.Solve(request_, metadata=metadata))
        stream = stub.SolveStream(pb.SolveStreamRequest(request=request_), metadata=metadata)
        return unary, await refused(read_all(stream))

    for error in run(call):
        assert error.code().name == status
        assert error.details()
        assert info_in(error).reason == code
        assert info_in(error).metadata["request_id"]
        bad = BadRequest()
        assert bool(fields) is any(one.Unpack(bad) for one in status_in(error).details)
        assert [one.field for one in bad.field_violations] == fields


def test_a_key_stands_in_the_metadata() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stub = SolverStub(channel)
        mine = [("x-api-key", "mine")]
        await stub.Solve(pb.SolveRequest(grid=FOUR), metadata=mine)
        wrong = [("x-api-key", "wrong")]
        return desk.orders, [
            await refused(stub.Solve(pb.SolveRequest(grid=FOUR), metadata=wrong)),
            await refused(stub.SolveBatch(pb.SolveBatchRequest(), metadata=wrong)),
            await refused(read_all(stub.SolveStream(pb.SolveStreamRequest(), metadata=wrong))),
            await refused(stub.SubmitJob(pb.SubmitJobRequest(), metadata=wrong)),
            await refused(stub.GetJob(pb.GetJobRequest(), metadata=wrong)),
            await refused(stub.CancelJob(pb.CancelJobRequest(), metadata=wrong)),
            await refused(stub.ListModels(pb.ListModelsRequest(), metadata=wrong)),
        ]

    (order,), failed = run(call)
    assert order.owner == "mine"
    for error in failed:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert info_in(error).reason == "unauthenticated"


def test_bytes_that_are_no_message_are_refused() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        unary = channel.unary_unary("/eqr.v1.Solver/Solve")
        stream = channel.unary_stream("/eqr.v1.Solver/SolveStream")
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        return [
            await refused(unary(b"\x0a\x02\xff\xff")),
            await refused(read_all(stream(b"\x0a\xff"))),
            await refused(health(b"\x0a\xff")),
        ]

    for error in run(call):
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert info_in(error).reason == "bad_request"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refusal("queue_full", "full"), "RESOURCE_EXHAUSTED", "queue_full"),
        (Refusal("draining", "stops"), "UNAVAILABLE", "draining"),
        (TimeoutError(), "DEADLINE_EXCEEDED", "deadline_exceeded"),
        (RuntimeError("a secret"), "INTERNAL", "internal_error"),
    ],
)
def test_an_error_is_the_status_of_a_call_and_of_a_stream(
    error: Exception, status: str, code: str
) -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stub = SolverStub(channel)
        unary = await refused(stub.Solve(pb.SolveRequest(grid=FOUR)))
        got, stream = [], stub.SolveStream(pb.SolveStreamRequest(request={"grid": FOUR}))

        async def read() -> None:
            async for message in stream:
                got.append(message.WhichOneof("event"))

        return unary, await refused(read()), got

    unary, stream, got = run(call, error=error)
    assert got == ["progress"]
    for failed in (unary, stream):
        assert failed.code().name == status
        assert info_in(failed).reason == code
        assert "secret" not in str(failed)


def test_what_serve_itself_says_is_put_in_the_services_words() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        return await refused(SolverStub(channel).Solve(pb.SolveRequest(grid=FOUR)))

    error = run(call, fails="Solve")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert info_in(error).reason == "not_ready"
    assert "Traceback" not in str(error)


def test_a_stream_ends_with_the_result() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stream = SolverStub(channel).SolveStream(pb.SolveStreamRequest(request={"grid": FOUR}))
        return await read_all(stream)

    assert [one.WhichOneof("event") for one in run(call)] == ["progress", "result"]


@pytest.mark.parametrize(
    ("call_seconds", "own_ms", "low", "high"),
    [
        (100.0, None, 60.0, 99.75),
        (100.0, 2000.0, 2.0, 2.0),
        (100.0, 200_000.0, 60.0, 99.75),
        (1e6, None, 3600.0, 3600.0),
        (None, None, 60.0, 60.0),
    ],
)
def test_the_earlier_deadline_counts_and_leaves_time_for_the_answer(
    call_seconds: float | None, own_ms: float | None, low: float, high: float
) -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        request = pb.SolveRequest(grid=FOUR, budget=pb.Budget(deadline_ms=own_ms))
        forged = [("eqr-end", repr(time.time() + 5e5))]
        stub = SolverStub(channel)
        await stub.Solve(request, timeout=call_seconds, metadata=forged)
        await read_all(
            stub.SolveStream(
                pb.SolveStreamRequest(request=request), timeout=call_seconds, metadata=forged
            )
        )
        return [order.request.budget.deadline_ms for order in desk.orders]

    for limit_ms in run(call):
        assert low <= limit_ms / 1e3 <= high


@pytest.mark.parametrize(
    ("budget", "seconds"), [(pb.Budget(), 1.0), (pb.Budget(deadline_ms=100), None)]
)
def test_the_proxy_answers_for_an_ingress_that_does_not(
    budget: pb.Budget, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "LATE_SECONDS", 0.2)

    async def call(desk: Desk, channel: Any) -> Any:
        stub, request = SolverStub(channel), pb.SolveRequest(grid=FOUR, budget=budget)
        one = await refused(stub.Solve(request, timeout=seconds))
        stream = stub.SolveStream(pb.SolveStreamRequest(request=request), timeout=seconds)
        return one, await refused(read_all(stream))

    for ended in run(call, endless=True, silent=True):
        assert ended.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert info_in(ended).reason == "deadline_exceeded"


def test_a_client_that_leaves_a_stream_ends_the_solve() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stream = SolverStub(channel).SolveStream(pb.SolveStreamRequest(request={"grid": FOUR}))
        assert (await anext(aiter(stream))).WhichOneof("event") == "progress"
        stream.cancel()
        await desk.left.wait()

    run(call, endless=True)


def test_a_reader_that_falls_behind_loses_the_stream() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stream = SolverStub(channel).SolveStream(pb.SolveStreamRequest(request={"grid": FOUR}))
        await anext(aiter(stream))
        await desk.left.wait()
        return desk.told, await refused(read_all(stream))

    told, ended = run(call, endless=True)
    assert told > BEHIND_EVENTS
    assert ended.code() is grpc.StatusCode.ABORTED
    assert info_in(ended).reason == "slow_reader"


def test_ten_thousand_broken_messages_are_answered_or_refused() -> None:
    chance = random.Random(0)
    whole = pb.SolveRequest(
        grid=FOUR,
        task="sudoku",
        model="one",
        budget=pb.Budget(depth=3, breadth=2, tolerance=0.5, stop=pb.STOP_VERIFIED),
        seed=5,
        noise=0.25,
        priority=-3,
        include=[pb.INCLUDE_HISTORY],
    ).SerializeToString()

    def broken() -> bytes:
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            kind = chance.randrange(3)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                data.insert(place, chance.randrange(256))
            else:
                del data[place]
        return bytes(data)

    async def call(desk: Desk, channel: Any) -> Any:
        solve = channel.unary_unary("/eqr.v1.Solver/Solve")
        seen: Counter[str] = Counter()

        async def one(data: bytes) -> None:
            try:
                await solve(data)
                seen["OK"] += 1
            except grpc.aio.AioRpcError as error:
                seen[error.code().name] += 1

        for _ in range(100):
            await asyncio.gather(*(one(broken()) for _ in range(100)))
        return seen

    seen = run(call)
    assert set(seen) == {"OK", "INVALID_ARGUMENT"}
    assert seen.total() == 10_000
    assert min(seen.values()) > 200


def test_health_is_what_the_gateway_says() -> None:
    async def call(desk: Desk, channel: Any) -> Any:
        stub = health_pb2_grpc.HealthStub(channel)
        check = health_pb2.HealthCheckRequest
        found = [
            (await stub.Check(check())).status,
            (await stub.Check(check(service="eqr.v1.Solver"))).status,
        ]
        unknown = await refused(stub.Check(check(service="nobody")))
        listed = (await stub.List(health_pb2.HealthListRequest())).statuses
        watch = aiter(stub.Watch(check()))
        watched = [(await anext(watch)).status]
        desk.draining = True
        watched.append((await anext(watch)).status)
        ended = await refused(anext(watch))
        return found, unknown.code(), dict(listed), watched, ended

    kind = health_pb2.HealthCheckResponse
    found, unknown, listed, watched, ended = run(call)
    assert found == [kind.SERVING, kind.SERVING]
    assert unknown is grpc.StatusCode.NOT_FOUND
    assert {name: one.status for name, one in listed.items()} == {
        "": kind.SERVING,
        "eqr.v1.Solver": kind.SERVING,
    }
    assert watched == [kind.SERVING, kind.NOT_SERVING]
    assert ended.code() is grpc.StatusCode.UNAVAILABLE
    assert info_in(ended).reason == "draining"


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("ipv4:127.0.0.1:50000", True),
        ("ipv4:127.8.0.1:1", True),
        ("ipv6:%5B::1%5D:50000", True),
        ("ipv6:[::ffff:127.0.0.1]:50000", True),
        ("unix:/run/x", True),
        ("ipv4:10.0.0.7:50000", False),
        ("ipv6:%5Bfe80::1%5D:50000", False),
        ("ipv6:[::ffff:10.0.0.7]:50000", False),
        ("ipv4:nonsense", False),
        ("", False),
    ],
)
def test_callers_from_elsewhere_are_told_apart(peer: str, here: bool) -> None:
    assert proxy._is_here(peer) is here


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_hosts(host: str, own: bool) -> None:
    assert is_loopback(host) is own
