"""What a call over gRPC brings along: its id, its deadline, and how it is told its end."""

from __future__ import annotations

import time
from typing import Any

from eqr_core.engine.budget import MAX_DEADLINE_MS
from eqr_core.errors import DeadlineExceeded
from service.gate import VALID_ID
from service.problems import Refusal
from service.rpc_errors import REQUEST_ID_KEY, status_of
from service.schemas import SolveBody, new_id

END_KEY = "eqr-end"
"""Metadata with the moment at which the client's deadline passes, in seconds since 1970. Serve does
not hand a deadline on to its replicas; service/proxy.py does, and takes away what a client sent."""

ANSWER_SECONDS = 0.25
ANSWER_SHARE = 0.1
"""The answer must be back before the deadline: so many seconds, at most a tenth of what is left,
are kept for its way."""
ROUNDING = 0.01
"""gRPC rounds what is left up when it sends it, by at most this share."""


class Call:
    """One call, as the replica sees it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.metadata: dict[str, str] = dict(context.invocation_metadata())
        given = self.metadata.get(REQUEST_ID_KEY)
        # Serve has one for its own logs, a client's or made.
        known = dict(context.trailing_metadata()).get("request_id")
        self.request_id = next((one for one in (given, known) if _valid(one)), None) or new_id()
        self.has_valid_id = given is None or _valid(given)

    def with_deadline(self, body: SolveBody) -> SolveBody:
        """`body` that ends before the client's deadline; DeadlineExceeded where that has passed."""
        end = self.metadata.get(END_KEY)
        if end is None:
            return body
        left = float(end) - time.time()
        kept = min(ANSWER_SHARE * left, ROUNDING * left + ANSWER_SECONDS)
        left_ms = (left - kept) * 1e3
        if left_ms <= 0:
            raise DeadlineExceeded("the deadline passed before a solver could begin")
        own = body.budget.deadline_ms
        if own is not None and (own <= left_ms or own > MAX_DEADLINE_MS):
            return body
        limit = min(left_ms, MAX_DEADLINE_MS)
        return body.model_copy(
            update={"budget": body.budget.model_copy(update={"deadline_ms": limit})}
        )

    def refuse(self, refusal: Refusal) -> None:
        """Let the call end with `refusal` for its status."""
        status = status_of(refusal, self.request_id)
        self._context.set_code(status.code)
        self._context.set_details(status.message)
        self._context.set_trailing_metadata(status.trailing)

    def accept(self) -> None:
        """Let the call echo its id."""
        self._context.set_trailing_metadata([(REQUEST_ID_KEY, self.request_id)])


def _valid(request_id: str | None) -> bool:
    return request_id is not None and VALID_ID.fullmatch(request_id) is not None
