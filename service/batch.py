"""Several solves in one request; each succeeds or fails by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.orders import Order, order_of
from service.problems import Refusal, refusal_of
from service.schemas import BatchItem, FieldProblem, SolveAnswer, SolveBody

REQUESTS = "requests"
FULL_SECONDS = 0.5
"""Between two tries of an item for which there was no room."""

Solve = Callable[[Order], Awaitable[SolveAnswer]]

_log = logging.getLogger("ray.serve")


def items_of(body: Any, most: int, *, or_one: bool = False) -> tuple[Sequence[Any], str]:
    """The items of a body, and the JSON pointer below which they stand.

    A body is a list or ``{"requests": […]}``; with `or_one` also a single item, whose pointer is
    empty. Refusal ``invalid_request`` for anything else and for more than `most` items.
    """
    pointer = "#"
    items = body
    if isinstance(body, Mapping):
        if or_one and REQUESTS not in body:
            return [body], ""
        unknown = sorted(str(name)[:100] for name in body if name != REQUESTS)
        if unknown:
            raise _refused(f"#/{unknown[0]}", f"there is no such field; there is {REQUESTS}")
        pointer, items = f"#/{REQUESTS}", body.get(REQUESTS)
    if not isinstance(items, list) or not items:
        raise _refused(pointer, "it must be a list of one request or more")
    if len(items) > most:
        raise _refused(pointer, f"{len(items)} requests are more than the limit, {most}")
    return items, pointer


def body_of(item: Any) -> SolveBody:
    """`item` as a body of ``POST /solve``; RequestValidationError as FastAPI would raise."""
    try:
        return SolveBody.model_validate(item)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError(
            [{**fault, "loc": ("body", *fault["loc"])} for fault in faults]
        ) from None


def check_items(items: Sequence[Any], pointer: str, default_deadline_ms: float) -> list[SolveBody]:
    """All of `items` as bodies; a Refusal names the first that could not be solved, and where."""
    bodies = []
    for index, item in enumerate(items):
        try:
            body = body_of(item)
            order_of(body, default_deadline_ms)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            raise _below(f"{pointer}/{index}" if pointer else "", refusal) from None
        bodies.append(body)
    return bodies


async def solve_all(
    items: Sequence[Any],
    solve: Solve,
    *,
    at_once: int,
    default_deadline_ms: float,
    owner: str,
    request_id: str,
) -> list[BatchItem]:
    """The ends of `items`, solved with `at_once` of them in flight. Cancelled, it cancels all.

    An item that finds the solvers full, of its own batch as it may be, is tried again until its
    deadline, which counts from its first try.
    """
    room = asyncio.Semaphore(at_once)

    async def solved(item: Any) -> SolveAnswer:
        order = replace(order_of(body_of(item), default_deadline_ms), owner=owner)
        while True:
            try:
                return await solve(order)
            except Refusal as refusal:
                if refusal.code != "queue_full" or order.left_seconds < FULL_SECONDS:
                    raise
            await asyncio.sleep(FULL_SECONDS)

    async def one(item: Any) -> BatchItem:
        async with room:
            try:
                return BatchItem(answer=await solved(item))
            except Exception as error:
                return failed(error, request_id)

    async with asyncio.TaskGroup() as group:
        ends = [group.create_task(one(item)) for item in items]
    return [end.result() for end in ends]


def failed(error: Exception, request_id: str) -> BatchItem:
    """The end of an item that `error` ended; one that nobody foresaw goes to the log."""
    refusal = refusal_of(error)
    if refusal is None:
        _log.error("an item of request %s failed", request_id, exc_info=error)
        refusal = Refusal("internal_error", "the service failed; the fault is in its log")
    return BatchItem(error=refusal.document(request_id))


def _below(place: str, refusal: Refusal) -> Refusal:
    """`refusal` with the pointers of a body that stands at `place`."""
    if not place:
        return refusal
    errors = [
        problem.model_copy(update={"pointer": place + problem.pointer.removeprefix("#")})
        for problem in refusal.errors
    ]
    return Refusal(refusal.code, f"{place}: {refusal.detail}", errors)


def _refused(pointer: str, message: str) -> Refusal:
    return Refusal("invalid_request", message, [FieldProblem(pointer=pointer, message=message)])
