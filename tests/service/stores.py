"""What tests of the store share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[bool]], *, down_first: bool = False) -> None:
    """Wait until `holds`; with `down_first`, until it has been false before."""
    while down_first and await holds():
        await asyncio.sleep(0.01)
    while not await holds():
        await asyncio.sleep(0.05)
