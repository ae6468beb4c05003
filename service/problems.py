"""Every error that a client can see, in one place: RFC 9457 problem documents.

A `Refusal` is raised anywhere on the request's way; `refusal_of` turns what other layers raise
into one. `code` is stable and meant for programs, `detail` for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from eqr_core.errors import (
    BudgetError,
    DeadlineExceeded,
    EngineStopped,
    GridError,
    ModelError,
    QueueFull,
)
from service.schemas import FieldProblem, ProblemDocument

MEDIA_TYPE = "application/problem+json"

TITLES: dict[str, tuple[HTTPStatus, str]] = {
    "invalid_request_id": (HTTPStatus.BAD_REQUEST, "X-Request-Id cannot be used"),
    "malformed_json": (HTTPStatus.BAD_REQUEST, "The body is not JSON"),
    "bad_request": (HTTPStatus.BAD_REQUEST, "The request cannot be read"),
    "not_found": (HTTPStatus.NOT_FOUND, "There is nothing at this path"),
    "unknown_model": (HTTPStatus.NOT_FOUND, "There is no such model"),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "This path takes other methods"),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported_media_type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON"),
    "invalid_request": (HTTPStatus.UNPROCESSABLE_ENTITY, "A field is missing, unknown or wrong"),
    "invalid_grid": (HTTPStatus.UNPROCESSABLE_ENTITY, "The grid cannot be solved"),
    "invalid_budget": (HTTPStatus.UNPROCESSABLE_ENTITY, "The budget is outside its limits"),
    "unsuitable_model": (HTTPStatus.UNPROCESSABLE_ENTITY, "No model fits the grid"),
    "queue_full": (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests are waiting"),
    "not_ready": (HTTPStatus.SERVICE_UNAVAILABLE, "The service is not ready"),
    "draining": (HTTPStatus.SERVICE_UNAVAILABLE, "The service is shutting down"),
    "deadline_exceeded": (HTTPStatus.GATEWAY_TIMEOUT, "No answer before the deadline"),
    "internal_error": (HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed"),
}
"""Status and title of every code; nothing else in the service names a status."""

RETRY_AFTER_SECONDS = {"queue_full": 1, "not_ready": 2, "draining": 5}


class Refusal(Exception):
    """A request that gets a problem document instead of an answer."""

    def __init__(self, code: str, detail: str, errors: Sequence[FieldProblem] = ()) -> None:
        super().__init__(code, detail, tuple(errors))
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)

    @property
    def status(self) -> int:
        return TITLES[self.code][0].value

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` where trying again makes sense."""
        seconds = RETRY_AFTER_SECONDS.get(self.code)
        return {} if seconds is None else {"Retry-After": str(seconds)}

    def document(self, request_id: str) -> ProblemDocument:
        """The body of the response."""
        return ProblemDocument(
            type=f"urn:eqr:problem:{self.code}",
            title=TITLES[self.code][1],
            status=self.status,
            detail=self.detail,
            code=self.code,
            request_id=request_id,
            errors=list(self.errors) or None,
        )


_PLAIN: dict[type[Exception], str] = {
    QueueFull: "queue_full",
    EngineStopped: "not_ready",
    DeadlineExceeded: "deadline_exceeded",
    ModelError: "unsuitable_model",
    TimeoutError: "deadline_exceeded",
}
"""Codes of the errors that have a message and nothing else."""

MAX_ERRORS = 50
"""Faults listed in one document."""

_HTTP_CODES = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed"}


def refusal_of(error: BaseException) -> Refusal | None:
    """The refusal that `error` means, or None for an error nobody foresaw."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, GridError):
        return Refusal(
            "invalid_grid",
            str(error),
            [
                FieldProblem(pointer="#/grid", place=problem.place or None, message=problem.message)
                for problem in error.problems
            ],
        )
    if isinstance(error, BudgetError):
        field = FieldProblem(pointer=f"#/budget/{error.field}", message=str(error))
        return Refusal("invalid_budget", str(error), [field])
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return Refusal(_HTTP_CODES.get(error.status_code, "bad_request"), str(error.detail))
    for kind, code in _PLAIN.items():
        if isinstance(error, kind):
            return Refusal(code, str(error) or TITLES[code][1])
    return None


def _of_validation(error: RequestValidationError) -> Refusal:
    faults = error.errors()[:MAX_ERRORS]
    for fault in faults:
        if fault["type"] == "json_invalid":
            reason = fault.get("ctx", {}).get("error", fault["msg"])
            return Refusal("malformed_json", f"the body is not JSON: {reason}")
    problems = [
        FieldProblem(pointer=_pointer(fault["loc"][1:]), message=fault["msg"]) for fault in faults
    ]
    code = (
        "invalid_budget"
        if all(_in_budget(fault["loc"]) for fault in faults)
        else ("invalid_request")
    )
    detail = "; ".join(f"{problem.pointer}: {problem.message}" for problem in problems)
    return Refusal(code, detail, problems)


def _in_budget(location: Sequence[int | str]) -> bool:
    return len(location) > 2 and location[1] == "budget"


def _pointer(parts: Sequence[int | str]) -> str:
    """RFC 6901 pointer in its fragment form."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
