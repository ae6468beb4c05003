"""What can go wrong for a client of the service.

ClientError
├── RequestUnsendable     the address or the body cannot be sent
├── ConnectionFailed      no answer came: refused, cut off, or out of the client's own time
├── AnswerUnreadable      what came is neither an answer nor a problem document: another server?
└── ServiceError          a problem document; has status, code, detail, errors, request_id
    ├── InvalidInput      400, 413, 415, 422: the request must change
    ├── NotFound          404, 405
    ├── TooManyRequests   429: try again after `retry_after` seconds
    ├── Unavailable       503: not ready, or shutting down
    ├── DeadlineExceeded  504
    └── ServiceFault      500 and everything else
"""

from __future__ import annotations

from eqr_core.errors import EqrError
from service.schemas import FieldProblem, ProblemDocument


class ClientError(EqrError):
    """Base of all errors of the clients; its message is one line."""


class RequestUnsendable(ClientError):
    """The address or the body cannot be sent; nothing was."""

    exit_code = 2


class ConnectionFailed(ClientError):
    """No answer came from the server."""


class AnswerUnreadable(ClientError):
    """The server's answer is not one of this service."""


class ServiceError(ClientError):
    """The service answered with a problem document."""

    def __init__(self, problem: ProblemDocument, retry_after: float | None = None) -> None:
        super().__init__(f"{problem.title} ({problem.code}): {problem.detail}")
        self.problem = problem
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def detail(self) -> str:
        return self.problem.detail

    @property
    def errors(self) -> list[FieldProblem]:
        return self.problem.errors or []

    @property
    def request_id(self) -> str:
        return self.problem.request_id


class InvalidInput(ServiceError):
    """The request must change before it can be answered."""

    exit_code = 2


class NotFound(ServiceError):
    """There is no such path, method or model."""

    exit_code = 2


class TooManyRequests(ServiceError):
    """The service's queue is full."""


class Unavailable(ServiceError):
    """The service is not ready, or shutting down."""


class DeadlineExceeded(ServiceError):
    """The deadline passed before there was any answer."""


class ServiceFault(ServiceError):
    """The service failed."""


_BY_STATUS: dict[int, type[ServiceError]] = {
    400: InvalidInput,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    404: NotFound,
    405: NotFound,
    429: TooManyRequests,
    503: Unavailable,
    504: DeadlineExceeded,
}


def service_error(problem: ProblemDocument, retry_after: str | None) -> ServiceError:
    """The error that `problem` means."""
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return _BY_STATUS.get(problem.status, ServiceFault)(problem, seconds)
