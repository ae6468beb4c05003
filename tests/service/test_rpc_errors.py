"""Refusals as gRPC statuses with google.rpc's details."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from service.codes import TITLES
from service.problems import Refusal
from service.rpc_errors import CODES, DETAILS_KEY, RpcStatus, status_of
from service.schemas import FieldProblem

TRAILER_LIMIT = 8192


def details(status: RpcStatus) -> Status:
    data = dict(status.trailing)[DETAILS_KEY]
    assert isinstance(data, bytes)
    return Status.FromString(data)


def unpacked(status: RpcStatus, kind: type) -> list[object]:
    found = []
    for one in details(status).details:
        detail = kind()
        if one.Unpack(detail):
            found.append(detail)
    return found


@pytest.mark.parametrize("code", TITLES)
def test_every_code_has_a_status_that_names_it(code: str) -> None:
    status = status_of(Refusal(code, "why"), "id-1")
    assert status.code is CODES[TITLES[code][0].value]
    assert status.code is not grpc.StatusCode.OK
    assert dict(status.trailing)["x-request-id"] == "id-1"
    assert (details(status).code, details(status).message) == (status.code.value[0], "why")
    (info,) = unpacked(status, ErrorInfo)
    assert isinstance(info, ErrorInfo)
    assert (info.reason, info.domain, info.metadata["request_id"]) == (code, "eqr.v1", "id-1")


def test_retry_info_stands_where_retry_after_does() -> None:
    (retry,) = unpacked(status_of(Refusal("queue_full", "full"), "i"), RetryInfo)
    assert retry.retry_delay.seconds == 1  # type: ignore[attr-defined]
    assert not unpacked(status_of(Refusal("invalid_grid", "bad"), "i"), RetryInfo)


def test_each_fault_is_a_violation_with_its_place() -> None:
    faults = [
        FieldProblem(pointer="#/grid", place="row 1", message="1 stands twice"),
        FieldProblem(pointer="#/budget/depth", message="0 is too small"),
    ]
    (bad,) = unpacked(status_of(Refusal("invalid_request", "two", faults), "i"), BadRequest)
    assert isinstance(bad, BadRequest)
    assert [(one.field, one.description) for one in bad.field_violations] == [
        ("grid", "row 1: 1 stands twice"),
        ("budget.depth", "0 is too small"),
    ]


def test_endless_faults_fit_into_the_trailing_metadata() -> None:
    fault = FieldProblem(pointer="#/" + "ü" * 198, message="…" * 200)
    status = status_of(Refusal("invalid_request", "…" * 20_000, [fault] * 50), "x" * 128)
    coded = sum(len(value) * 4 // 3 for _, value in status.trailing)
    assert coded + 3 * len(status.message.encode()) < TRAILER_LIMIT
    (bad,) = unpacked(status, BadRequest)
    assert 1 <= len(bad.field_violations) < 50  # type: ignore[attr-defined]
