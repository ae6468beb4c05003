"""How much one may ask for: ceilings of a budget, and each API key's rate and NFE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from eqr_core.engine.budget import Budget
from eqr_core.errors import BudgetError
from service.problems import Refusal
from service.security import KeyRing
from service.store import Script, Store, StoreDown

TAKE = Script("""
local rate, room, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(held[1] or room)
tokens = math.min(room, tokens + math.max(0, now - tonumber(held[2] or now)) * rate)
local wait = 0
if tokens >= count then tokens = tokens - count else wait = (count - tokens) / rate end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], math.ceil(room / rate) + 1000)
return math.ceil(wait)
""")
"""Takes ARGV[3] tokens from a bucket that holds ARGV[2] and gains ARGV[1] a millisecond. Returns
the milliseconds until there will be as many; 0 where they were taken."""

CHARGE = Script("""
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], 172800)
return sum
""")


@dataclass(frozen=True)
class Ceilings:
    """The largest budget that a request may name."""

    depth: int
    breadth: int
    nfe: int

    def check(self, budget: Budget) -> None:
        """Raise BudgetError where `budget` is above a ceiling, naming field, value and limit."""
        for field, value, limit in (
            ("depth", budget.depth, self.depth),
            ("breadth", budget.breadth, self.breadth),
        ):
            if value > limit:
                raise BudgetError(field, f"{value} is more than this service allows, {limit}")
        product = budget.depth * budget.breadth
        most = product if budget.nfe is None else min(budget.nfe, product)
        if most > self.nfe:
            told = "depth · breadth, " if most == product else ""
            raise BudgetError("nfe", f"{told}{most}, is more than this service allows, {self.nfe}")


class Limits:
    """What each API key may still use. Counted in the store; in this process while it is down.

    Owners without limits, and the empty owner of a service without keys, pass.
    """

    def __init__(self, store: Store, keys: KeyRing | None) -> None:
        self._store, self._keys = store, keys
        self._buckets: dict[str, tuple[float, float]] = {}
        self._spent: dict[str, int] = {}

    async def take(self, owner: str, count: int = 1) -> None:
        """Count `count` solves; Refusal ``rate_limited`` where they come too fast.

        More than the bucket holds cost a full bucket.
        """
        key = self._keys.named(owner) if self._keys else None
        if key is None or key.rate_per_minute is None:
            return
        room = max(1.0, key.rate_per_minute)
        rate, cost = key.rate_per_minute / 60_000, min(float(count), room)
        try:
            wait = await self._store.run(TAKE, [f"rate:{owner}"], rate, room, cost)
        except StoreDown:
            wait = self._take_here(owner, rate, room, cost)
        if wait:
            raise Refusal(
                "rate_limited",
                f"{key.rate_per_minute:g} solves a minute are allowed",
                headers={"Retry-After": str(math.ceil(wait / 1e3))},
            )

    async def check_quota(self, owner: str) -> None:
        """Raise a Refusal ``quota_exceeded`` where the day's NFE are used up."""
        key = self._keys.named(owner) if self._keys else None
        if key is None or key.nfe_per_day is None:
            return
        name = _quota(owner)
        try:
            spent = int(await self._store.get(name) or 0)
        except StoreDown:
            spent = self._spent.get(name, 0)
        if spent >= key.nfe_per_day:
            raise Refusal(
                "quota_exceeded",
                f"{key.nfe_per_day} NFE a day are allowed; the day ends at midnight UTC",
                headers={"Retry-After": str(_seconds_to_midnight())},
            )

    async def charge(self, owner: str, nfe: int) -> None:
        """Add the NFE of a solve. What runs at the same time may exceed the quota together."""
        key = self._keys.named(owner) if self._keys else None
        if key is None or key.nfe_per_day is None or not nfe:
            return
        name = _quota(owner)
        try:
            await self._store.run(CHARGE, [name], nfe)
        except StoreDown:
            if name not in self._spent:
                today = name.rpartition(":")[2]
                self._spent = {k: v for k, v in self._spent.items() if k.endswith(today)}
            self._spent[name] = self._spent.get(name, 0) + nfe

    def _take_here(self, owner: str, rate: float, room: float, cost: float) -> float:
        now = monotonic() * 1e3
        tokens, then = self._buckets.get(owner, (room, now))
        tokens = min(room, tokens + (now - then) * rate)
        wait = 0.0 if tokens >= cost else (cost - tokens) / rate
        self._buckets[owner] = (tokens if wait else tokens - cost, now)
        return wait


def _quota(owner: str) -> str:
    return f"nfe:{owner}:{datetime.now(UTC):%Y-%m-%d}"


def _seconds_to_midnight() -> int:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return math.ceil((midnight - now).total_seconds())
