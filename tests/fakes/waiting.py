"""Waiting for something to become true, bounded in time: the only way in which tests wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def wait_until(
    condition: Callable[[], object], *, within_s: float = 5.0, every_s: float = 0.005
) -> float:
    """Wait until `condition()` is true and return how long it took.

    Raises AssertionError when it is still false after `within_s`.
    """
    started_s = time.monotonic()
    while not condition():
        passed_s = time.monotonic() - started_s
        assert passed_s < within_s, f"not within {within_s} s: {condition}"
        await asyncio.sleep(every_s)
    return time.monotonic() - started_s


async def stuck_at(count: list[int], *, within_s: float = 10.0, still_s: float = 0.25) -> int:
    """Wait until the one number in `count` has stood still for a while; return it."""
    seen = -1
    async with asyncio.timeout(within_s):
        while seen != count[0]:
            seen = count[0]
            await asyncio.sleep(still_s)  # nothing says that something will not happen but time
    return seen
