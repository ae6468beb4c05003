"""Ceilings, rates and quotas; with a real Valkey, and with none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from eqr_core.engine.budget import Budget
from eqr_core.errors import BudgetError
from service.limits import Ceilings, Limits
from service.problems import Refusal
from service.security import KeyRing
from service.store import Store

SMALL = Ceilings(depth=64, breadth=16, nfe=512)


@pytest.mark.parametrize(
    ("budget", "field", "value", "limit"),
    [
        (Budget(depth=65), "depth", 65, 64),
        (Budget(breadth=17), "breadth", 17, 16),
        (Budget(), "nfe", 1024, 512),
        (Budget(nfe=513), "nfe", 513, 512),
    ],
)
def test_a_budget_above_a_ceiling_is_named(
    budget: Budget, field: str, value: int, limit: int
) -> None:
    with pytest.raises(BudgetError) as caught:
        SMALL.check(budget)
    assert caught.value.field == field
    assert str(value) in str(caught.value)
    assert str(limit) in str(caught.value)


@pytest.mark.parametrize(
    "budget", [Budget(nfe=512), Budget(depth=32), Budget(depth=2, breadth=2, nfe=9999)]
)
def test_a_budget_at_the_ceilings_passes(budget: Budget) -> None:
    SMALL.check(budget)


def play(
    folder: Path, url: str | None, scene: Callable[[list[Limits]], Coroutine[Any, Any, None]]
) -> None:
    """`scene` with the limits of two processes."""
    path = folder / "keys"
    lines = [
        {"name": "slow", "sha256": "1" * 64, "rate_per_minute": 600},
        {"name": "rare", "sha256": "2" * 64, "rate_per_minute": 0.5},
        {"name": "poor", "sha256": "3" * 64, "nfe_per_day": 100},
        {"name": "free", "sha256": "4" * 64},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))

    async def on_stage() -> None:
        stores = [Store(url), Store(url)]
        await scene([Limits(store, KeyRing(path)) for store in stores])
        for store in stores:
            await store.close()

    asyncio.run(on_stage())


@pytest.fixture(params=["valkey", "down"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "valkey":
        return str(request.getfixturevalue("store_url"))
    return f"unix://{tmp_path / 'nobody'}"


async def refused(limits: Limits, owner: str, count: int = 1) -> Refusal | None:
    try:
        await limits.take(owner, count)
    except Refusal as refusal:
        return refusal
    return None


def test_a_bucket_empties_and_fills_again(tmp_path: Path, url: str | None) -> None:
    async def scene(both: list[Limits]) -> None:
        limits = both[0]
        began = time.monotonic()
        await limits.take("slow", 599)
        taken = 599
        while (refusal := await refused(limits, "slow")) is None:
            taken += 1
        elapsed = time.monotonic() - began
        assert taken <= 600 + 10 * elapsed
        assert (refusal.code, refusal.headers["Retry-After"]) == ("rate_limited", "1")
        while await refused(limits, "slow", 3):
            await asyncio.sleep(0.01)
        taken += 3
        elapsed = time.monotonic() - began
        assert taken - 600 <= 10 * elapsed + 1
        # More than fits costs a full bucket, and is not refused for ever.
        assert await refused(limits, "slow", 10_000)

    play(tmp_path, url, scene)


def test_the_bucket_is_one_for_all_processes(tmp_path: Path, store_url: str) -> None:
    async def scene(both: list[Limits]) -> None:
        assert await refused(both[0], "rare") is None
        refusal = await refused(both[1], "rare")
        assert refusal is not None
        assert 100 < int(refusal.headers["Retry-After"]) <= 120

    play(tmp_path, store_url, scene)


def test_a_day_has_its_nfe(tmp_path: Path, url: str | None) -> None:
    async def scene(both: list[Limits]) -> None:
        limits = both[0]
        for _ in range(2):
            await limits.check_quota("poor")
            await limits.charge("poor", 50)
        with pytest.raises(Refusal) as caught:
            await limits.check_quota("poor")
        assert caught.value.code == "quota_exceeded"
        assert 0 < int(caught.value.headers["Retry-After"]) <= 86400
        if not url or "nobody" not in url:
            with pytest.raises(Refusal):
                await both[1].check_quota("poor")

    play(tmp_path, url, scene)


@pytest.mark.parametrize("owner", ["", "free", "gone"])
def test_who_has_no_limits_passes(tmp_path: Path, store_url: str, owner: str) -> None:
    async def scene(both: list[Limits]) -> None:
        for _ in range(5):
            await both[0].take(owner, 1000)
            await both[0].charge(owner, 10**9)
            await both[0].check_quota(owner)

    play(tmp_path, store_url, scene)
