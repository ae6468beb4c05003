"""Answers kept in the store, and one solve for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, replace

from pydantic import ValidationError

from eqr_core.engine.confidence import FIELD
from eqr_core.model.sizes import count, fits
from service.orders import ANY_MODEL, Order
from service.problems import Refusal, refusal_of
from service.schemas import ModelAnswer, SolveAnswer, Timing
from service.store import Store, StoreDown

VERSION = "3"
"""Part of every key; to be raised when answers change their form or an engine its results."""

MAX_BYTES = 1 << 18
"""Larger answers, of many trajectories with their histories, are not kept."""

NEAR_SECONDS = 0.2
"""Deadlines this near to each other are one: those of the same requests sent at the same time."""
WORTH_SECONDS = 0.1
"""With less time left, a solve of one's own would not end better than the one waited for."""

Run = Callable[[Order], Awaitable[SolveAnswer]]


def suited(models: Sequence[ModelAnswer], order: Order) -> ModelAnswer | None:
    """The model that a solver holding `models` uses for `order`; None where it would refuse.

    The rule is `Engine.choose_model`'s.
    """
    task, name = order.request.task, order.request.model
    fitting = [
        model
        for model in models
        if name in (ANY_MODEL, model.name)
        and model.task == task.name
        and fits(model.sizes, task.size)
    ]
    return min(fitting, key=lambda model: count(model.sizes), default=None)


def key_of(order: Order, model: ModelAnswer) -> str:
    """Key of the answer of `order` by `model`: everything that an answer follows from."""
    request = order.request
    budget = request.budget
    parts = [
        VERSION,
        model.name,
        model.digest,
        request.task.name,
        request.grid,
        budget.depth,
        budget.breadth,
        budget.nfe,
        # These are the card's, which can be calibrated without a change of the weights.
        model.tolerance if budget.tolerance is None else budget.tolerance,
        model.calibration.get(FIELD),
        budget.stop,
        budget.halt,
        budget.steps_in_a_row,
        request.seed,
        request.noise,
        request.selection,
        order.trajectories,
        request.history,
    ]
    return "answer:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def keepable(answer: SolveAnswer) -> bool:
    """Whether another solve of the same order would answer the same."""
    return answer.finish_reason not in ("deadline", "cancelled") and not answer.breadth.lost


@dataclass
class _Flight:
    """A solve that several may wait for; it ends when none of them is left."""

    key: str
    end: float
    task: asyncio.Task[SolveAnswer]
    waiting: int = 0


class Cache:
    """Answers by their keys. Without the store every order is solved; nothing is refused."""

    def __init__(self, store: Store, seconds: float, count: Callable[[bool], None]) -> None:
        """Keep answers for `seconds`; tell `count` of every order whether it was a hit."""
        self._store, self._seconds, self._count = store, seconds, count
        self._flights: dict[str, _Flight] = {}

    async def solve(self, order: Order, model: ModelAnswer, run: Run) -> SolveAnswer:
        """The kept answer; else that of `run`, shared by those who ask the same meanwhile.

        It has the order's own id, and `cached` where it was not computed for this order. Raises
        what `run` raises.
        """
        # The choice is part of the key; the solver must not make another.
        order = replace(order, request=replace(order.request, model=model.name))
        key = key_of(order, model)
        found = await self._kept(key)
        flight = self._flights.get(key)
        if found is None and flight is not None and flight.end <= order.end + NEAR_SECONDS:
            found = await self._follow(flight, order)
        self._count(found is not None)
        if found is not None:
            timing = Timing(queue=0.0, solve=0.0, total=0.0)
            return found.model_copy(
                update={"id": order.request.id, "cached": True, "timing_ms": timing}
            )
        if key in self._flights:  # it ends too late for this order, or did not help
            return await run(order)
        return await self._wait(self._take_off(key, order, run))

    def _take_off(self, key: str, order: Order, run: Run) -> _Flight:
        # In a context of its own: when the client that came first goes away, Serve cancels all
        # calls of its context, and others may wait for this one.
        task = asyncio.create_task(self._run(key, order, run), context=Context())
        flight = self._flights[key] = _Flight(key, order.end, task)
        task.add_done_callback(lambda _: self._land(flight))
        return flight

    async def _run(self, key: str, order: Order, run: Run) -> SolveAnswer:
        answer = await run(order)
        if keepable(answer):
            document = answer.model_dump_json()
            if len(document) <= MAX_BYTES:
                with suppress(StoreDown):
                    await self._store.put(key, document, self._seconds)
        return answer

    async def _follow(self, flight: _Flight, order: Order) -> SolveAnswer | None:
        """The answer of `flight`; None where it came too early to be this order's."""
        try:
            answer = await self._wait(flight)
        except (Refusal, TimeoutError) as error:
            refusal = refusal_of(error)
            late = refusal is not None and refusal.code == "deadline_exceeded"
            if late and order.left_seconds > WORTH_SECONDS:
                return None
            raise
        return answer if keepable(answer) or order.left_seconds <= WORTH_SECONDS else None

    async def _wait(self, flight: _Flight) -> SolveAnswer:
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._land(flight)
                flight.task.cancel()

    def _land(self, flight: _Flight) -> None:
        """Nobody may board any more."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    async def _kept(self, key: str) -> SolveAnswer | None:
        try:
            document = await self._store.get(key)
            return None if document is None else SolveAnswer.model_validate_json(document)
        except (StoreDown, ValidationError):
            return None
