"""Calls over gRPC, blocking and for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.client.calls import Answer, Call
from service.client.errors import (
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    InvalidInput,
    NotFound,
    RequestUnsendable,
    StreamBroken,
    TimedOut,
    problem_of,
    service_error,
)
from service.client.events import Event
from service.client.rpc_messages import (
    answer_of,
    batch_of,
    event_of,
    job_of,
    model_of,
    pointer_of,
    solve_message,
)
from service.schemas import BatchAnswer, BatchItem, FieldProblem, ModelAnswer, ModelsAnswer
from service.stubs import solver_pb2 as pb
from service.stubs.solver_pb2_grpc import SolverStub

SECURE = {"grpc": False, "grpcs": True}
"""Whether an address of the scheme is reached over TLS."""

OPTIONS = [
    ("grpc.max_receive_message_length", 1 << 26),
    # Finds a server that has gone without a word; servers forbid to ask more often than in 300 s.
    ("grpc.keepalive_time_ms", 360_000),
]
DETAILS_KEY = "grpc-status-details-bin"


class RpcTransport:
    """Sends calls over one channel."""

    def __init__(self, server: str, api_key: str | None) -> None:
        self._server, self._api_key = server, api_key
        self._channel = _channel(server, grpc)
        self._stub = SolverStub(self._channel)

    def send(self, call: Call[Answer], seconds: float | None) -> Answer:
        """The answer; at most `seconds`, which the service knows and keeps."""
        plan = _plan(call)
        if plan.message is None:
            return cast(Answer, plan.read(None))
        try:
            message = getattr(self._stub, plan.method)(
                plan.message, timeout=seconds, metadata=_metadata(call, self._api_key)
            )
        except grpc.RpcError as error:
            raise error_of(error, self._server, call) from None
        return cast(Answer, plan.read(message))

    def stream(self, call: Call[Any], seconds: float | None) -> Generator[Event, None, None]:
        """The events as they come; closing it ends the solve."""
        request = pb.SolveStreamRequest(request=solve_message(call.content, call.request_id))
        running = self._stub.SolveStream(
            request, timeout=seconds, metadata=_metadata(call, self._api_key)
        )
        failed = ConnectionFailed
        try:
            for message in running:
                failed = StreamBroken
                yield event_of(message)
        except grpc.RpcError as error:
            raise error_of(error, self._server, call, failed) from None
        finally:
            running.cancel()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncRpcTransport:
    """The same for asyncio. A cancelled call ends the solve."""

    def __init__(self, server: str, api_key: str | None) -> None:
        _target(server)
        self._server, self._api_key = server, api_key
        self._channel: Any = None
        self._stub: Any = None

    async def send(self, call: Call[Answer], seconds: float | None) -> Answer:
        """The answer; at most `seconds`, which the service knows and keeps."""
        plan = _plan(call)
        if plan.message is None:
            return cast(Answer, plan.read(None))
        self._open()
        try:
            message = await getattr(self._stub, plan.method)(
                plan.message, timeout=seconds, metadata=_metadata(call, self._api_key)
            )
        except grpc.RpcError as error:
            raise error_of(error, self._server, call) from None
        return cast(Answer, plan.read(message))

    async def stream(self, call: Call[Any], seconds: float | None) -> AsyncGenerator[Event, None]:
        """The events as they come; closing it ends the solve."""
        request = pb.SolveStreamRequest(request=solve_message(call.content, call.request_id))
        self._open()
        running = self._stub.SolveStream(
            request, timeout=seconds, metadata=_metadata(call, self._api_key)
        )
        failed = ConnectionFailed
        try:
            async for message in running:
                failed = StreamBroken
                yield event_of(message)
        except grpc.RpcError as error:
            raise error_of(error, self._server, call, failed) from None
        finally:
            running.cancel()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    def _open(self) -> None:
        """A channel belongs to the event loop that it is made in, which may not run before."""
        asyncio.get_running_loop()
        if self._channel is None:
            self._channel = _channel(self._server, grpc.aio)
            self._stub = SolverStub(self._channel)


@dataclass(frozen=True)
class _Plan:
    """A call as gRPC makes it: the method, its request (None: nothing to send), the reading."""

    method: str
    message: Any
    read: Callable[[Any], Any]


def _plan(call: Call[Any]) -> _Plan:
    content, made_id = call.content, call.request_id
    match call.operation:
        case "solve":
            return _Plan("Solve", solve_message(content, made_id), answer_of)
        case "batch":
            return _batch_plan(content, made_id)
        case "submit":
            requests = [
                solve_message(one, made_id, f"#/{number}") for number, one in enumerate(content)
            ]
            message = pb.SubmitJobRequest(requests=requests, idempotency_key=call.key or "")
            return _Plan("SubmitJob", message, lambda told: job_of(told.job, made_id))
        case "job":
            ask = pb.GetJobRequest(id=call.name)
            return _Plan("GetJob", ask, lambda told: job_of(told.job, made_id))
        case "cancel":
            end = pb.CancelJobRequest(id=call.name)
            return _Plan("CancelJob", end, lambda told: job_of(told.job, made_id))
        case "models":
            return _Plan("ListModels", pb.ListModelsRequest(), _models_of)
        case "model":
            every = pb.ListModelsRequest()
            return _Plan("ListModels", every, lambda told: _model_named(_models_of(told), call))
        case operation:
            raise ValueError(f"{operation} is no unary call")


def _batch_plan(content: list[Any], request_id: str) -> _Plan:
    """Items that cannot be told as messages end here, and the others go on."""
    refused: dict[int, BatchItem] = {}
    requests = []
    for number, one in enumerate(content):
        try:
            requests.append(solve_message(one, request_id))
        except InvalidInput as error:
            refused[number] = BatchItem(error=error.problem)
    if refused and not requests:
        return _Plan("SolveBatch", None, lambda _: BatchAnswer(results=list(refused.values())))

    def read(message: pb.SolveBatchResponse) -> BatchAnswer:
        told = iter(batch_of(message, request_id).results)
        numbers = range(len(content))
        return BatchAnswer(
            results=[refused.get(number) or next(told, BatchItem()) for number in numbers]
        )

    return _Plan("SolveBatch", pb.SolveBatchRequest(requests=requests), read)


def _models_of(message: pb.ListModelsResponse) -> ModelsAnswer:
    return ModelsAnswer(models=[model_of(one) for one in message.models])


def _model_named(answer: ModelsAnswer, call: Call[Any]) -> ModelAnswer:
    for model in answer.models:
        if model.name == call.name:
            return model
    known = ", ".join(model.name for model in answer.models)
    detail = f"there is no model {call.name[:200]!r}; there are {known}"
    raise NotFound(problem_of("unknown_model", detail, call.request_id))


def _target(server: str) -> tuple[str, bool]:
    scheme, _, target = server.partition("://")
    target = target.rstrip("/")
    if scheme not in SECURE or not target or any(mark in target for mark in "/ ?#"):
        raise RequestUnsendable(f"server {server[:200]!r} is no address such as grpc://host:9000")
    return target, SECURE[scheme]


def _channel(server: str, kind: Any) -> Any:
    """A channel of `kind`, grpc or grpc.aio."""
    target, secure = _target(server)
    if secure:
        return kind.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
    return kind.insecure_channel(target, options=OPTIONS)


def _metadata(call: Call[Any], api_key: str | None) -> tuple[tuple[str, str], ...]:
    metadata = [("x-request-id", call.request_id)]
    if api_key is not None:
        metadata.append(("authorization", f"Bearer {api_key}"))
    if call.key is not None and call.operation != "submit":
        metadata.append(("idempotency-key", call.key))
    return tuple(metadata)


def error_of(
    error: Any, server: str, call: Call[Any], failed: type[ConnectionFailed] = ConnectionFailed
) -> ClientError:
    """What a failed call says: the service's refusal, or `failed` where none of it was reached."""
    packed = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    refusal = _refusal_of(packed, call) if isinstance(packed, bytes) else None
    if refusal is not None:
        return refusal
    code, details = error.code(), error.details() or ""
    told = f"{server}: {details or code}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(told)
    # INTERNAL is also what gRPC calls an HTTP/2 stream that a proxy between has reset.
    reset = code is grpc.StatusCode.INTERNAL and "RST_STREAM" in details
    if reset or code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return failed(told)
    return AnswerUnreadable(f"{told}, which is no answer of this service")


def _refusal_of(details: bytes, call: Call[Any]) -> ClientError | None:
    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    try:
        status = Status.FromString(details)
        for detail in status.details:
            for kind in (info, retry, bad):
                detail.Unpack(kind)
    except DecodeError:
        return None
    if not info.reason:
        return None
    faults = [
        FieldProblem(pointer=pointer_of(one.field), message=one.description)
        for one in bad.field_violations
    ]
    request_id = info.metadata.get("request_id", call.request_id)
    seconds = retry.retry_delay.ToTimedelta().total_seconds()
    problem = problem_of(info.reason, status.message, request_id, faults)
    return service_error(problem, seconds or None)
