"""Time as a number: what is to happen when, in order, and nothing runs by itself.

It stands in for the event loop where that is asked for no more than the time and timers.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


class Timer:
    """Something that is to happen, and may be called off."""

    __slots__ = ("_act", "_args")

    def __init__(self, act: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._act: Callable[..., object] | None = act
        self._args = args

    def cancel(self) -> None:
        """Call it off; it makes no difference once it has happened."""
        self._act = None

    def ring(self) -> None:
        """Let it happen."""
        if self._act is not None:
            self._act(*self._args)


class Timeline:
    """All that is to happen, in order; of one instant, what was set first. `now_s` begins at 0."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = count()

    def __repr__(self) -> str:
        return f"<Timeline at {self.now_s:.3f} s, {len(self._heap)} to come>"

    def time(self) -> float:
        """Tell the time, as an event loop does."""
        return self.now_s

    def call_at(self, at_s: float, act: Callable[..., object], *args: Any) -> Timer:
        """Let something happen at this instant, or now if that has passed."""
        timer = Timer(act, args)
        heappush(self._heap, (max(at_s, self.now_s), next(self._numbers), timer))
        return timer

    def call_later(self, delay_s: float, act: Callable[..., object], *args: Any) -> Timer:
        """Let something happen after a while."""
        return self.call_at(self.now_s + delay_s, act, *args)

    def call_soon(self, act: Callable[..., object], *args: Any) -> Timer:
        """Let something happen at this instant, behind all that is to happen at it already."""
        return self.call_at(self.now_s, act, *args)

    def run_until(self, until_s: float) -> None:
        """Let everything happen up to this instant. What any of it raises comes out."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self.now_s, _, timer = heappop(heap)
            timer.ring()
        self.now_s = until_s
