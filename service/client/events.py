"""Server-sent events as the service sends them: a name, and one line of JSON."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from service.client.errors import AnswerUnreadable, service_error
from service.schemas import ProblemDocument, ProgressAnswer, SolveAnswer

Event = ProgressAnswer | SolveAnswer

MAX_EVENT_BYTES = 1 << 26


class EventReader:
    """Cuts bytes into events, however they are cut on their way."""

    def __init__(self) -> None:
        self._left = b""
        self.ended = False
        """Whether the result has come."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes. Raises what an `error` event says; AnswerUnreadable."""
        *whole, self._left = (self._left + data).split(b"\n\n")
        if len(self._left) > MAX_EVENT_BYTES:
            raise AnswerUnreadable("an event of the stream has no end")
        for block in whole:
            event = _event(block)
            if event is not None:
                self.ended = isinstance(event, SolveAnswer)
                yield event


def _event(block: bytes) -> Event | None:
    """The event of `block`; None for a comment."""
    fields = {
        name: value.removeprefix(b" ")
        for name, _, value in (line.partition(b":") for line in block.split(b"\n"))
        if name
    }
    if not fields:
        return None
    name, data = fields.get(b"event"), fields.get(b"data", b"")
    try:
        if name == b"progress":
            return ProgressAnswer.model_validate_json(data)
        if name == b"result":
            return SolveAnswer.model_validate_json(data)
        if name == b"error":
            raise service_error(ProblemDocument.model_validate_json(data))
    except ValidationError:
        pass
    raise AnswerUnreadable("an event of the stream is none of this service's")
