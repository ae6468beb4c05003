"""Micro-batching: a call to a solver costs as much as several orders, so some go in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context

from service.orders import Order
from service.problems import Refusal
from service.schemas import SolveAnswer

GROUP = 8
"""Orders of a call, at most. Its answers come when all of them have ended, so larger groups leave
slots idle at the end."""
GATHER_SECONDS = 0.002
"""So long the first order of a call waits for others."""

Outcome = SolveAnswer | Refusal
Send = Callable[[Sequence[Order]], Awaitable[Sequence[Outcome]]]


class MicroBatcher:
    """Sends orders that come at about the same time in one call. Use one for a batch.

    Only orders whose deadlines are a tenth of a second apart at most go together: no answer waits
    for one that may take longer.
    """

    def __init__(self, send: Send, size: int = GROUP) -> None:
        self._send, self._size = send, size
        self._waiting: dict[float, list[tuple[Order, asyncio.Future[Outcome]]]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def submit(self, order: Order) -> Outcome:
        """What `order` comes to; raises what the call raises. Cancelled, it is not sent, and a
        call whose orders all are cancelled is cancelled.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        deadline = round(order.end, 1)
        group = self._waiting.setdefault(deadline, [])
        group.append((order, outcome))
        if len(group) >= self._size:
            self._flush(deadline)
        elif len(group) == 1:
            loop.call_later(GATHER_SECONDS, self._flush, deadline)
        return await outcome

    def _flush(self, deadline: float) -> None:
        group = [pair for pair in self._waiting.pop(deadline, ()) if not pair[1].done()]
        if not group:
            return
        # In a context of its own: when a client goes away, Serve cancels all calls of its context,
        # and others may wait for these answers. Those who wait cancel the call here.
        call = asyncio.create_task(self._dispatch(group), context=Context())
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

        def leave(_: object) -> None:
            if all(outcome.cancelled() for _, outcome in group):
                call.cancel()

        for _, outcome in group:
            outcome.add_done_callback(leave)

    async def _dispatch(self, group: Sequence[tuple[Order, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._send([order for order, _ in group])
        except Exception as error:
            for _, waiting in group:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (_, waiting), outcome in zip(group, outcomes, strict=True):
            if not waiting.done():
                waiting.set_result(outcome)
