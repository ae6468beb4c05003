"""The shutter at the door, for gRPC: see door.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.gate import REFUSED_BEFORE
from service.idempotency import HEADER
from service.problems import Refusal
from service.rpc_errors import DETAILS_KEY
from service.shutter import Ask, Shutter
from service.stubs import solver_pb2 as pb


@dataclass(frozen=True)
class Visit:
    """A call on its way. `ask` is None where the proxy has no say; `told` is for its metadata."""

    ask: Ask | None = None
    told: Sequence[tuple[str, str]] = ()


class RpcDoor:
    """Refuses calls of Solve while the ingress says that the solvers are full."""

    def __init__(self) -> None:
        self._shutter = Shutter()
        self._refused = 0

    def enter(self, request: Any, context: Any) -> Visit:
        """Let a call in, or raise a Refusal ``queue_full``."""
        if not isinstance(request, pb.SolveRequest) or _has_key(context):
            return Visit()
        ask = _ask_of(request, context)
        try:
            self._shutter.check(ask)
        except Refusal:
            self._refused += 1
            raise
        told = [(REFUSED_BEFORE, str(self._refused))] if self._refused else []
        self._refused = 0
        return Visit(ask, told)

    def leave(self, visit: Visit, context: Any) -> None:
        """Learn from how a call ended."""
        if visit.ask is None:
            return
        if context.code() in (None, 0, grpc.StatusCode.OK):
            self._shutter.answered()
        elif context.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            refusal = _refusal_in(dict(context.trailing_metadata()).get(DETAILS_KEY, b""))
            if refusal is not None:
                self._shutter.refused(visit.ask, refusal)


def _has_key(context: Any) -> bool:
    return any(name == HEADER.lower() for name, _ in context.invocation_metadata())


def _ask_of(request: pb.SolveRequest, context: Any) -> Ask:
    left = context.time_remaining()
    limits = [] if left is None else [float(left)]
    if request.budget.HasField("deadline_ms"):
        limits.append(request.budget.deadline_ms / 1e3)
    return Ask(request.priority, min(limits, default=None))


def _refusal_in(details: bytes) -> Refusal | None:
    """What the ingress said; None unless that was ``queue_full``."""
    status, info, retry = Status(), ErrorInfo(), RetryInfo()
    with suppress(DecodeError):
        status.ParseFromString(details)
    for detail in status.details:
        for known in (info, retry):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    if info.reason != "queue_full":
        return None
    return Refusal(
        "queue_full", status.message, headers={"Retry-After": str(retry.retry_delay.seconds)}
    )
