"""Waiting for something to become true: the only way in which tests wait.

The rule: a limit is there to end what hangs, so it is PATIENCE_S everywhere, on the busiest machine
too; how long something takes is asked with `time_until`, in tests with the marker `soak` only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Less than the limit of a test, so that what was waited for is named when it does not come.
PATIENCE_S = 60.0


async def wait_until(condition: Callable[[], object], *, every_s: float = 0.005) -> None:
    """Wait until `condition()` is true.

    Raises AssertionError when it is still false after PATIENCE_S.
    """
    await time_until(condition, every_s=every_s)


async def time_until(condition: Callable[[], object], *, every_s: float = 0.005) -> float:
    """Wait as `wait_until` does; return the seconds that it took."""
    started_s = time.monotonic()
    while not condition():
        passed_s = time.monotonic() - started_s
        assert passed_s < PATIENCE_S, f"not within {PATIENCE_S} s: {condition}"
        await asyncio.sleep(every_s)
    return time.monotonic() - started_s


async def stuck_at(count: list[int], *, still_s: float = 0.25) -> int:
    """Wait until the one number in `count` has stood still for a while; return it."""
    seen = -1
    async with asyncio.timeout(PATIENCE_S):
        while seen != count[0]:
            seen = count[0]
            await asyncio.sleep(still_s)  # nothing says that something will not happen but time
    return seen
