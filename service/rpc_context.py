"""What a call over gRPC brings along: its id, its deadline, and how it is told its end."""

from __future__ import annotations

import logging
import time
from typing import Any

from eqr_core.engine.budget import MAX_DEADLINE_MS
from eqr_core.errors import DeadlineExceeded
from service.gate import VALID_ID
from service.problems import Refusal
from service.rpc_errors import REQUEST_ID_KEY, status_of
from service.schemas import new_id

END_KEY = "eqr-end"
"""Metadata with the moment at which the client's deadline passes, in seconds since 1970. Serve does
not hand a deadline on to its replicas; service/proxy.py does, and takes away what a client sent."""

ANSWER_SECONDS = 0.25
ANSWER_SHARE = 0.1
"""The answer must be back before the deadline: so many seconds, at most a tenth of what is left,
are kept for its way."""
ROUNDING = 0.01
"""gRPC rounds what is left up when it sends it, by at most this share."""

_log = logging.getLogger("ray.serve")


class Call:
    """One call, as the replica sees it."""

    def __init__(self, context: Any, method: str) -> None:
        self._context = context
        self._method = method
        self._began = time.monotonic()
        self._status = "CANCELLED"
        self.metadata: dict[str, str] = dict(context.invocation_metadata())
        given = self.metadata.get(REQUEST_ID_KEY)
        # Serve has one for its own logs, a client's or made.
        known = dict(context.trailing_metadata()).get("request_id")
        self.request_id = next((one for one in (given, known) if _valid(one)), None) or new_id()
        self.has_valid_id = given is None or _valid(given)
        self.owner = ""
        """Name of the API key that the call came with."""
        self.repetition = ""
        """What calls with the same idempotency key and content share."""

    def with_deadline(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A solve's fields, ending before the client's deadline; DeadlineExceeded after it."""
        end = self.metadata.get(END_KEY)
        if end is None:
            return fields
        left = float(end) - time.time()
        left_ms = (left - kept_seconds(left)) * 1e3
        if left_ms <= 0:
            raise DeadlineExceeded("the deadline passed before a solver could begin")
        own = fields["budget"].get("deadline_ms")
        # One that is not valid stays, to be refused.
        if own is not None and not left_ms <= own <= MAX_DEADLINE_MS:
            return fields
        limit = min(left_ms, MAX_DEADLINE_MS)
        return {**fields, "budget": {**fields["budget"], "deadline_ms": limit}}

    def refuse(self, refusal: Refusal) -> None:
        """Let the call end with `refusal` for its status."""
        status = status_of(refusal, self.request_id)
        self._status = status.code.name
        self._context.set_code(status.code)
        self._context.set_details(status.message)
        self._context.set_trailing_metadata(status.trailing)

    def echo(self) -> None:
        """Let the call's end have its id."""
        self._context.set_trailing_metadata([(REQUEST_ID_KEY, self.request_id)])

    def accept(self) -> None:
        """Let the call end well."""
        self._status = "OK"
        self.echo()

    def log(self) -> None:
        """One line for the call, with no metadata and no message in it."""
        fields = {
            "method": self._method,
            "status": self._status,
            "seconds": round(time.monotonic() - self._began, 4),
            "owner": self.owner,
            "request": self.request_id,
        }
        _log.info("call", extra=fields)


def kept_seconds(left: float) -> float:
    """How much of the `left` seconds of a call is kept for the answer's way back."""
    return min(ANSWER_SHARE * left, ROUNDING * left + ANSWER_SECONDS)


def _valid(request_id: str | None) -> bool:
    return request_id is not None and VALID_ID.fullmatch(request_id) is not None
