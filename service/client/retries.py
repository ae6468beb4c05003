"""When a client asks again, and how long it waits before.

Every call of the clients may be repeated: a solve has no effects, a job is submitted under an
idempotency key, and what reads or cancels does so twice without harm.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from service.client.errors import (
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    ServiceError,
    TimedOut,
    TooManyRequests,
    Unavailable,
)

GATEWAY_STATUSES = (502, 503, 504)
"""What a load balancer answers, in words of its own, while no service is behind it."""

FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Retries:
    """How often a call is tried, and the pauses between.

    Refusals for now (429, 503), broken connections and streams, and a load balancer's 502 to 504
    are tried again; all else is final. The pause is random up to `first_seconds`, doubled with
    every attempt; never less than ``Retry-After``. Where that is above `longest_seconds` nothing
    is tried again. ValueError for values that make no sense.
    """

    attempts: int = 4
    first_seconds: float = 0.25
    longest_seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1")
        for name in ("first_seconds", "longest_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be a finite number from 0")

    def pause(self, error: ClientError, attempt: int) -> float | None:
        """Seconds before the attempt after number `attempt`, from 1; None to give up."""
        if attempt >= self.attempts or not is_passing(error):
            return None
        asked = error.retry_after if isinstance(error, ServiceError) else None
        if (asked or 0.0) > self.longest_seconds:
            return None
        grown = min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1))
        # All of it random: clients that were refused together shall not come back together.
        return (asked or 0.0) + random.uniform(0.0, grown)


DEFAULT_RETRIES = Retries()
NO_RETRIES = Retries(attempts=1)


def is_passing(error: ClientError) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, AnswerUnreadable):
        return error.status in GATEWAY_STATUSES
    if isinstance(error, TimedOut):
        return False
    return isinstance(error, ConnectionFailed | TooManyRequests | Unavailable)


class Clock:
    """The end of a call."""

    def __init__(self, *seconds: float | None) -> None:
        """End after the first of `seconds` that is not None; never where all are."""
        given = next((one for one in seconds if one is not None), None)
        if given is not None and not given > 0:
            raise ValueError(f"timeout is {given}; it must be above 0")
        self._end = None if given is None else time.monotonic() + given

    def left(self) -> float | None:
        """Seconds that are left; TimedOut where none are."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimedOut("the time for the call is up")
        return left

    def fit(self, pause: float) -> float:
        """`pause`, or what is left of the time; TimedOut where nothing is."""
        left = self.left()
        return pause if left is None else min(pause, left)


class Attempts:
    """The attempts of one call."""

    def __init__(self, retries: Retries, clock: Clock) -> None:
        self._retries, self._clock = retries, clock
        self._made = 0

    def pause_after(self, error: ClientError) -> float:
        """Seconds before the next attempt; raises `error` where there is none."""
        self._made += 1
        pause = self._retries.pause(error, self._made)
        if pause is None:
            raise error
        left = self._clock.left()
        if left is not None and pause >= left:
            raise error
        return pause


def polls() -> Iterator[float]:
    """Pauses between questions whether a job has ended: short ones first."""
    pause = FIRST_POLL_SECONDS
    while True:
        yield pause * random.uniform(0.75, 1.25)
        pause = min(LONGEST_POLL_SECONDS, 1.5 * pause)
