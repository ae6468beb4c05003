"""Every error that a client can see, in one place: RFC 9457 problem documents.

A `Refusal` is raised anywhere on the request's way; `refusal_of` turns what other layers raise
into one. `code` is stable and meant for programs, `detail` for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

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
from service.codes import TITLES
from service.schemas import FieldProblem, ProblemDocument
from service.store import StoreDown

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER_SECONDS = {
    "queue_full": 1,
    "rate_limited": 1,
    "quota_exceeded": 3600,
    "not_ready": 2,
    "draining": 5,
    "store_unavailable": 2,
}
"""What ``Retry-After`` says where the refusal itself knows no better."""


class Refusal(Exception):
    """A request that gets a problem document instead of an answer.

    For `holds_seconds` a solver that refused so would refuse what is like that request too.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        holds_seconds: float = 0.0,
    ) -> None:
        super().__init__(code, detail, tuple(errors), headers, holds_seconds)
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.holds_seconds = holds_seconds
        self._headers = dict(headers or {})

    @property
    def status(self) -> int:
        return TITLES[self.code][0].value

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` where trying again makes sense, ``Allow`` with a 405."""
        seconds = RETRY_AFTER_SECONDS.get(self.code)
        retry = {} if seconds is None else {"Retry-After": str(seconds)}
        return {**retry, **self._headers}

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


_CODES_BY_ERROR: dict[type[Exception], str] = {
    QueueFull: "queue_full",
    DeadlineExceeded: "deadline_exceeded",
    ModelError: "unsuitable_model",
}
"""Codes of the errors whose message is the detail."""

_FIXED: dict[type[Exception], tuple[str, str]] = {
    EngineStopped: ("not_ready", "the solver has stopped and is being replaced"),
    StoreDown: ("store_unavailable", "the store does not answer, and this needs it"),
    TimeoutError: ("deadline_exceeded", "no solver answered before the deadline"),
}
"""Code and detail of the errors whose message tells of the inside."""

MAX_ERRORS = 50
"""Faults listed in one document."""

MAX_ECHO = 200
"""Characters of a body's own names or values in a pointer or message."""

_HTTP_CODES = {400: "malformed_json", 404: "not_found", 405: "method_not_allowed"}


def refusal_of(error: BaseException) -> Refusal | None:
    """The refusal that `error` means, or None for an error nobody foresaw."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, GridError):
        faults = [
            FieldProblem(pointer="#/grid", place=problem.place or None, message=problem.message)
            for problem in error.problems[:MAX_ERRORS]
        ]
        return Refusal("invalid_grid", _joined(map(str, error.problems)), faults)
    if isinstance(error, BudgetError):
        field = FieldProblem(pointer=f"#/budget/{error.field}", message=str(error))
        return Refusal("invalid_budget", str(error), [field])
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        code = _HTTP_CODES.get(error.status_code, "bad_request")
        return Refusal(code, str(error.detail), headers=error.headers)
    for kind, code in _CODES_BY_ERROR.items():
        if isinstance(error, kind):
            return Refusal(code, str(error) or TITLES[code][1])
    for kind, (code, detail) in _FIXED.items():
        if isinstance(error, kind):
            return Refusal(code, detail)
    return None


def _of_validation(error: RequestValidationError) -> Refusal:
    faults = error.errors()[:MAX_ERRORS]
    for fault in faults:
        if fault["type"] == "json_invalid":
            reason = fault.get("ctx", {}).get("error", fault["msg"])
            return Refusal("malformed_json", f"the body is not JSON: {reason}")
    problems = [
        FieldProblem(pointer=_pointer(fault["loc"][1:]), message=_cut(fault["msg"]))
        for fault in faults
    ]
    budget = all(_in_budget(fault["loc"]) for fault in faults)
    code = "invalid_budget" if budget else "invalid_request"
    detail = _joined(f"{problem.pointer}: {problem.message}" for problem in problems)
    return Refusal(code, detail, problems)


def _in_budget(location: Sequence[int | str]) -> bool:
    return len(location) > 2 and location[1] == "budget"


def _pointer(parts: Sequence[int | str]) -> str:
    """RFC 6901 pointer in its fragment form, cut where the body holds endless names."""
    return _cut(
        "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)
    )


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(islice(texts, MAX_ERRORS))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"
