"""A refusal as gRPC tells it: a status code, and google.rpc's details in the trailing metadata."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.messages import field_of
from service.problems import Refusal
from service.schemas import FieldProblem

DOMAIN = "eqr.v1"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"

CODES: dict[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.ABORTED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""gRPC's code for each HTTP status in problems.TITLES."""

MAX_MESSAGE = 500
MAX_DETAILS = 3500
"""Bytes. A client takes 8 KiB of trailing metadata, where details grow by a third (base64) and a
message can grow threefold (percent-encoding)."""


@dataclass(frozen=True)
class RpcStatus:
    """How a call ends without an answer."""

    code: grpc.StatusCode
    message: str
    trailing: list[tuple[str, str | bytes]]


def status_of(refusal: Refusal, request_id: str) -> RpcStatus:
    """`refusal` for gRPC: ErrorInfo, and BadRequest and RetryInfo where they say something."""
    code = CODES[refusal.status]
    message = _cut(refusal.detail, MAX_MESSAGE)
    info = ErrorInfo(reason=refusal.code, domain=DOMAIN, metadata={"request_id": request_id})
    status = Status(code=code.value[0], message=message, details=[_packed(info)])
    seconds = refusal.headers.get("Retry-After", "")
    if seconds.isdecimal():
        delay = Duration(seconds=int(seconds))
        status.details.append(_packed(RetryInfo(retry_delay=delay)))
    violations = _violations(refusal, MAX_DETAILS - status.ByteSize())
    if violations.field_violations:
        status.details.append(_packed(violations))
    trailing: list[tuple[str, str | bytes]] = [
        (REQUEST_ID_KEY, request_id),
        (DETAILS_KEY, status.SerializeToString()),
    ]
    return RpcStatus(code, message, trailing)


def _violations(refusal: Refusal, room: int) -> BadRequest:
    """As many of the faults as fit into `room` bytes."""
    found = BadRequest()
    for problem in refusal.errors:
        found.field_violations.append(_violation(problem))
        if found.ByteSize() > room:
            del found.field_violations[-1]
            break
    return found


def _violation(problem: FieldProblem) -> BadRequest.FieldViolation:
    text = f"{problem.place}: {problem.message}" if problem.place else problem.message
    return BadRequest.FieldViolation(
        field=_cut(field_of(problem.pointer), MAX_MESSAGE), description=_cut(text, MAX_MESSAGE)
    )


def _packed(detail: object) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _cut(text: str, most: int) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"
