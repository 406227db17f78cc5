"""What a busy machine takes from a test that measures time: so that it need not be blamed on us.

The rule: only time in which this process wanted to run and did not is taken off. A loop that is
held up by what it does itself uses its core meanwhile, and that stays to be blamed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_EVERY_S = 0.01


@asynccontextmanager
async def stolen_time() -> AsyncIterator[Callable[[], float]]:
    """Give a function that tells the longest time (seconds) that was taken at once so far."""
    worst_s = [0.0]
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_watch(worst_s))
        try:
            yield lambda: worst_s[0]
        finally:
            watching.cancel()


async def _watch(worst_s: list[float]) -> None:
    while True:
        slept_at_s, used_s = time.monotonic(), time.process_time()
        await asyncio.sleep(_EVERY_S)
        late_s = time.monotonic() - slept_at_s - _EVERY_S
        worst_s[0] = max(worst_s[0], late_s - (time.process_time() - used_s))
