"""What can go wrong for a client of the service, the same over REST and gRPC.

ClientError
├── RequestUnsendable     the address or the body cannot be sent
├── ConnectionFailed      no answer came: refused or cut off
│   ├── StreamBroken      cut off after a stream had begun
│   └── TimedOut          the client's own time was up first
├── AnswerUnreadable      what came is neither an answer nor a problem: another server?
└── ServiceError          a problem document; has status, code, detail, errors, request_id
    ├── InvalidInput      400, 413, 415, 422: the request must change
    ├── AccessDenied      401, 403: the API key is missing, unknown, or not from there
    ├── NotFound          404, 405
    ├── FellBehind        408: a stream that was read too slowly
    ├── Conflict          409: an idempotency key used for two different requests
    ├── TooManyRequests   429: try again after `retry_after` seconds
    ├── Unavailable       503: not ready, or shutting down
    ├── DeadlineExceeded  504
    └── ServiceFault      500 and everything else
"""

from __future__ import annotations

from collections.abc import Sequence

from eqr_core.errors import EqrError
from service.codes import TITLES
from service.schemas import FieldProblem, ProblemDocument


class ClientError(EqrError):
    """Base of all errors of the clients; its message is one line."""


class RequestUnsendable(ClientError):
    """The address or the body cannot be sent; nothing was."""

    exit_code = 2


class ConnectionFailed(ClientError):
    """No answer came from the server."""


class StreamBroken(ConnectionFailed):
    """A stream that had begun ended without its result: what had it died, or the network did."""


class TimedOut(ConnectionFailed):
    """The time that the client gave the call was up before there was an answer."""


class AnswerUnreadable(ClientError):
    """The server's answer is not one of this service; `status` is that of HTTP, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


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


class AccessDenied(ServiceError):
    """The service does not take requests from this caller."""

    exit_code = 2


class NotFound(ServiceError):
    """There is no such path, method, model or job."""

    exit_code = 2


class FellBehind(ServiceError):
    """The events of a stream were not read in time."""


class Conflict(ServiceError):
    """The idempotency key belongs to another request."""

    exit_code = 2


class TooManyRequests(ServiceError):
    """The service's queue is full, or the API key's limits are reached."""


class Unavailable(ServiceError):
    """The service is not ready, or shutting down."""


class DeadlineExceeded(ServiceError):
    """The deadline passed before there was any answer."""


class ServiceFault(ServiceError):
    """The service failed."""


_BY_STATUS: dict[int, type[ServiceError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    405: NotFound,
    408: FellBehind,
    409: Conflict,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    429: TooManyRequests,
    503: Unavailable,
    504: DeadlineExceeded,
}


def service_error(problem: ProblemDocument, retry_after: float | None = None) -> ServiceError:
    """The error that `problem` means."""
    return _BY_STATUS.get(problem.status, ServiceFault)(problem, retry_after)


def problem_of(
    code: str, detail: str, request_id: str, errors: Sequence[FieldProblem] = ()
) -> ProblemDocument:
    """The document that the service would send over REST; a code of a later version is a fault."""
    status, title = TITLES.get(code, TITLES["internal_error"])
    return ProblemDocument(
        type=f"urn:eqr:problem:{code}",
        title=title,
        status=status.value,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=list(errors) or None,
    )
