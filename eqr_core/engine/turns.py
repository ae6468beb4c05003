"""Which of the busy rows the next tick steps. Pure Python.

A *fresh* request is one that has spent few outer steps yet. While rows of fresh requests run, the
others get one outer step for every two of theirs. So a puzzle that takes few steps is answered
soon, whatever else runs, and what runs long still gets a third.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from eqr_core.engine.trajectory import Request

FRESH_STEPS = 32
"""Outer steps up to which a request is fresh."""
OTHERS_SHARE = 0.5
"""Outer steps of the others for each of fresh requests, while there are both."""


class _Placed(Protocol):
    @property
    def request(self) -> Request: ...


Placed = TypeVar("Placed", bound=_Placed)


def is_fresh(request: Request) -> bool:
    """Whether it has spent few outer steps yet."""
    return request.nfe < FRESH_STEPS


class Turns:
    """Keeps count of what is due to the rows that are not fresh."""

    def __init__(self, most: int) -> None:
        """`most` is how many outer steps may be owed to them."""
        self._most = float(most)
        self._due = 0.0

    def choose(self, busy: Iterable[Placed]) -> list[Placed]:
        """Of the rows `busy`, in their order: all fresh ones, and of the others what is due."""
        rows = list(busy)
        fresh = [is_fresh(row.request) for row in rows]
        if all(fresh) or not any(fresh):
            self._due = 0.0
            return rows
        self._due = max(-1.0, min(self._due, self._most))
        due, chosen = int(self._due), []
        for row, is_first in zip(rows, fresh, strict=True):
            due -= not is_first
            if is_first or due >= 0:
                chosen.append(row)
        return chosen

    def count(self, request: Request) -> None:
        """One outer step of `request` was made; call it before the step is counted in its NFE."""
        self._due += OTHERS_SHARE if is_fresh(request) else -1
