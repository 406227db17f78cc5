"""Work beside the event loop, in daemon threads of our own.

The default executor of asyncio is not used for work that may take long: its few threads are shared,
so that work that hangs stops all other work, and asyncio.run waits for them at the end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_SLICE_S = 0.001
_REST_S = 0.0005


class StoppedError(Exception):
    """The result of the work is no longer wanted."""


class Pace:
    """Divides the time of a thread that computes, so that the event loop gets the interpreter.

    Without it the thread keeps the interpreter for 5 ms at a time (sys.setswitchinterval).
    """

    def __init__(self) -> None:
        self._is_stopped = False
        self._since_s = time.perf_counter()

    def stop(self) -> None:
        """End the work at its next step."""
        self._is_stopped = True

    def step(self) -> None:
        """Let the loop go on; to be called between two pieces of work, each below a millisecond.

        Raises StoppedError when nobody waits for the result.
        """
        if time.perf_counter() - self._since_s < _SLICE_S:
            return
        if self._is_stopped:
            raise StoppedError
        # A sleep of 0 would give the interpreter back before the loop has taken it.
        time.sleep(_REST_S)
        self._since_s = time.perf_counter()


async def in_thread(work: Callable[[Pace], T], *, name: str) -> T:
    """Run `work` in a thread of its own and return its result, or raise its error.

    When the caller is cancelled, the work ends at its next step; the thread is not waited for.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    pace = Pace()

    def succeed(result: T) -> None:
        if not outcome.done():
            outcome.set_result(result)

    def fail(error: Exception) -> None:
        if not outcome.done():
            outcome.set_exception(error)

    def run() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            try:
                result = work(pace)
            except Exception as error:  # noqa: BLE001 -- raised where the result is awaited
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return await outcome
    finally:
        pace.stop()
