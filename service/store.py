"""The one store: any server that speaks Redis's protocol (DESIGN section 4).

It holds cached answers, jobs, idempotency keys and limits, all under the prefix ``eqr:``. Whatever
goes wrong with it is a `StoreDown`: solves go on without, what cannot is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from eqr_core.errors import EqrError

PREFIX = "eqr:"

Value = str | bytes | int | float
Ask = Callable[[], Awaitable[Any]]

CONNECTIONS = 32
ANSWER_SECONDS = 1.0
"""The store answers within this time or counts as down."""
DURABLE_SECONDS = 5.0
"""So long a write may take to be on the store's disk."""
DOWN_SECONDS = 1.0
"""So long after a failure nobody asks it: waiting for it would cost every solve its time."""


class StoreDown(EqrError):
    """The store cannot be reached, or does not answer in time."""


@dataclass(frozen=True)
class Script:
    """A Lua script, which the store runs as one step. KEYS come with the prefix."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is the protocol's name for a script, and no secret.
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


class Store:
    """Values, and scripts over them. Every method raises StoreDown, and nothing else.

    Connections are opened when they are needed, within the event loop that asks first; use one
    `Store` in one loop. Without a URL it is down for good.
    """

    def __init__(self, url: str | None) -> None:
        # Any: its methods are not annotated.
        self._redis: Any = None if url is None else _client(url, ANSWER_SECONDS)
        self._durable: Any = None if url is None else _client(url, DURABLE_SECONDS + 1)
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._durable_room = asyncio.Semaphore(CONNECTIONS)
        self._asking: set[asyncio.Task[Any]] = set()
        self._asleep_until = 0.0

    @property
    def configured(self) -> bool:
        """Whether there is a store at all, up or down."""
        return self._redis is not None

    async def get(self, key: str) -> bytes | None:
        """The value of `key`."""
        value: bytes | None = await self._ask("GET", _full(key))
        return value

    async def put(self, key: str, value: bytes | str, seconds: float) -> None:
        """Keep `value` under `key` for `seconds`."""
        await self._ask("SET", _full(key), value, "PX", max(1, int(seconds * 1e3)))

    async def run(self, script: Script, keys: Sequence[str], *arguments: Value) -> Any:
        """What `script` returns for `keys`, which it sees as KEYS, and `arguments`, its ARGV."""
        rest = (len(keys), *map(_full, keys), *arguments)
        try:
            return await self._ask("EVALSHA", script.digest, *rest)
        except NoScriptError:
            return await self._ask("EVAL", script.source, *rest)

    async def run_durably(self, script: Script, keys: Sequence[str], *arguments: Value) -> Any:
        """As `run`, and the change is on the store's disk, if it keeps its data on one at all.

        A StoreDown can come from a change that was made, but too slowly.
        """
        # In one batch, as the waiting is for what was written over the same connection.
        command = ("EVAL", script.source, len(keys), *map(_full, keys), *arguments)
        wait = ("WAITAOF", 1, 0, int(DURABLE_SECONDS * 1e3))
        result, synced = await self._finish(self._durable_room, lambda: self._batch(command, wait))
        if isinstance(result, RedisError):
            raise self._down(result)
        # An error is a server that keeps no such file, or is too old to tell.
        if not isinstance(synced, RedisError) and not synced[0]:
            raise StoreDown("the store's disk is too slow")
        return result

    async def check(self) -> None:
        """Return when the store answers."""
        await self._ask("PING")

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await asyncio.gather(*self._asking, return_exceptions=True)
            await self._redis.aclose()
            await self._durable.aclose()

    async def _ask(self, *command: Value) -> Any:
        return await self._finish(self._room, lambda: self._redis.execute_command(*command))

    async def _batch(self, *commands: Sequence[Value]) -> list[Any]:
        batch = self._durable.pipeline(transaction=False)
        for command in commands:
            batch.execute_command(*command)
        results: list[Any] = await batch.execute(raise_on_error=False)
        return results

    async def _finish(self, room: asyncio.Semaphore, ask: Ask) -> Any:
        """What `ask` gives. Cancelled, this returns at once, and `ask` goes on to its end.

        redis-py does not survive a cancellation in the wrong moment: its pool loses a connection,
        or keeps a lock for ever.
        """
        self._check_awake()
        task = asyncio.create_task(self._in_turn(room, ask))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return await asyncio.shield(task)

    async def _in_turn(self, room: asyncio.Semaphore, ask: Ask) -> Any:
        async with room:
            self._check_awake()
            try:
                return await ask()
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                raise self._down(error) from None

    def _check_awake(self) -> None:
        if self._redis is None:
            raise StoreDown("the service runs without a store")
        if monotonic() < self._asleep_until:
            raise StoreDown("the store did not answer a moment ago")

    def _down(self, error: Exception) -> StoreDown:
        self._asleep_until = monotonic() + DOWN_SECONDS
        # The message of a failed connection may hold its URL, and with it a password.
        return StoreDown(f"the store does not answer: {type(error).__name__}")


def _full(key: str) -> str:
    return PREFIX + key


def _client(url: str, seconds: float) -> Redis:
    try:
        client: Redis = Redis.from_url(
            url,
            max_connections=CONNECTIONS,
            socket_timeout=seconds,
            socket_connect_timeout=ANSWER_SECONDS,
            protocol=2,
            # Once more at once: a connection from before the store's restart is no failure.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        raise StoreUnusable(
            "store_url: it must be redis://HOST:PORT/DB, rediss://… or unix://PATH"
        ) from None
    return client


class StoreUnusable(EqrError):
    """A store's address or folder that cannot be used."""

    exit_code = 2
