"""Alarms: what must happen at an instant, and sooner than the coarse clock would notice.

They are for requests that really wait: for a failover, or for an answer that another instance may
give sooner. However many there are, the loop has one timer, for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

Act = Callable[[float], None]


class _Alarm(NamedTuple):
    """Sorts by its time, and by its number among those of one time."""

    at_s: float
    number: int
    act: Act
    break_down: Act


class Alarms:
    """Rings them in order. All times are monotonic seconds.

    Without a loop they ring when `ring` is called.
    """

    __slots__ = ("_heap", "_loop", "_numbers", "_timer", "_timer_at_s")

    def __init__(self) -> None:
        self._heap: list[_Alarm] = []
        self._numbers = count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0

    def __repr__(self) -> str:
        return f"<Alarms {len(self._heap)} set>"

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ring by this loop's clock from now on."""
        self._loop = loop
        self._wind()

    def stop(self) -> None:
        """Ring no more, and forget all that are set."""
        self._heap.clear()
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def set(self, at_s: float, act: Act, *, break_down: Act) -> None:
        """Let `act` be called at this instant, with the time that it is then.

        It cannot be taken back: `act` finds out whether it still matters. What it raises is told by
        the loop, and `break_down` is called first.
        """
        heappush(self._heap, _Alarm(at_s, next(self._numbers), act, break_down))
        if self._timer is None or at_s < self._timer_at_s:
            self._wind()

    def ring(self, now_s: float) -> None:
        """Call all whose instant has come."""
        heap = self._heap
        while heap and heap[0].at_s <= now_s:
            alarm = heappop(heap)
            guarded(self._loop, alarm.act, alarm.break_down, now_s)

    def _wind(self) -> None:
        """Set the one timer to the next alarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is not None and self._heap:
            self._timer_at_s = self._heap[0].at_s
            self._timer = self._loop.call_at(self._timer_at_s, self._on_time)

    def _on_time(self) -> None:
        assert self._loop is not None
        self._timer = None
        try:
            self.ring(self._loop.time())
        finally:
            self._wind()


def guarded(
    loop: asyncio.AbstractEventLoop | None, act: Act, break_down: Act | None, now_s: float
) -> bool:
    """Call `act`, and `break_down` if it raises; return False where that raises too.

    The loop tells what was raised: a mistake of one must not keep others from being called, now or
    ever after. Without a loop it comes out.
    """
    errors: list[Exception] = []
    for call in (act, break_down):
        if call is None:
            break
        try:
            call(now_s)
            break
        except Exception as error:  # noqa: BLE001 -- whatever it is, the loop tells it
            errors.append(error)
    for raised in errors:
        if loop is None:
            raise raised
        loop.call_exception_handler(
            {"message": "a callback of the clock failed", "exception": raised}
        )
    return len(errors) <= 1
