"""How a worker learns that nobody waits for its shard any more.

Ray's own way is `ray.cancel`, but Ray 2.60 aborts the process that cancels a task at the moment at
which the task begins or ends ("Tried to complete task that was not pending"), and that process is
the solver. So a shard is told by a message, and ends as any other task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import cached_property
from itertools import count
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MOST_SHARDS = 1 << 20
"""Calls that a board may hold at a time: more than there can be shards, lest none is recalled."""


class Board:
    """An actor that knows which shards are recalled.

    Each number is asked for once and recalled once, in whichever order the two arrive; then it is
    forgotten.
    """

    def __init__(self) -> None:
        self._events: dict[int, asyncio.Event] = {}

    async def recalled(self, number: int) -> None:
        """Return when that shard is recalled."""
        await self._event(number).wait()
        del self._events[number]

    async def recall(self, number: int) -> None:
        """Have that shard end."""
        self._event(number).set()

    def _event(self, number: int) -> asyncio.Event:
        return self._events.setdefault(number, asyncio.Event())


class Recalls:
    """The board of this process: it is on the same node, and ends with it."""

    def __init__(self) -> None:
        self._numbers = count()

    @cached_property
    def _board(self) -> Any:
        here = ray.get_runtime_context().get_node_id()
        kind: Any = ray.remote(Board).options(
            num_cpus=0,
            max_concurrency=MOST_SHARDS,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )
        return apart(kind.remote)

    @contextmanager
    def shard(self) -> Iterator[Any]:
        """A reference that is ready once the block is left; it is an error when this process dies.

        A worker that is given it, in a list, ends its shard then.
        """
        number = next(self._numbers)
        recalled = apart(self._board.recalled.remote, number)
        try:
            yield recalled
        finally:
            apart(self._board.recall.remote, number)


def apart(start: Callable[..., Any], *args: object) -> Any:
    """Start a task that is no child of the one that runs here.

    When Serve cancels a request whose client has gone, Ray cancels the tasks that it has started
    as well: from the process that started them.
    """
    return Context().run(start, *args)
