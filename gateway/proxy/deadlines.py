"""One coarse clock for all timeouts.

A timer for each request would cost more than the request. So every Exchange carries the instant at
which it has waited too long, and one tick, ten times a second, looks for those that have. A timeout
is therefore late by up to a tick, which nobody notices at the scale of seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

TICK_S = 0.1
_TICKS_BETWEEN_SWEEPS = 10


class Expiring(Protocol):
    """Something that waits, until `deadline_s` (monotonic, `inf` for no limit) at the latest."""

    deadline_s: float

    def expire(self, now_s: float) -> None:
        """Hear that the deadline has passed."""
        ...

    def break_down(self, now_s: float) -> None:
        """Hear that `expire` raised: stop waiting, whatever else cannot be done."""
        ...


class Sweepable(Protocol):
    """Something that keeps things for a while and throws them away when told the time."""

    def sweep(self, now_s: float) -> None:
        """Throw away what is too old, about once a second."""
        ...


class Deadlines:
    """The clock and those who wait by it. `watched` and `swept` are written by whoever waits."""

    __slots__ = ("_ticks", "_timer", "now_s", "swept", "watched")

    def __init__(self) -> None:
        self.watched: set[Expiring] = set()
        self.swept: set[Sweepable] = set()
        self.now_s = 0.0
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to tick in this loop."""
        self._tick(loop, loop.time)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, now_s: float) -> None:
        """Tell everybody whose deadline has passed; done by each tick.

        What one of them raises ends that one, and comes out here; the others hear of it next time.
        """
        self.now_s = now_s
        for late in [one for one in self.watched if one.deadline_s <= now_s]:
            if late in self.watched:  # one that expired may have settled another
                _expire(late, now_s)
        self._ticks += 1
        if self._ticks % _TICKS_BETWEEN_SWEEPS == 0:
            for sweepable in tuple(self.swept):
                sweepable.sweep(now_s)

    def _tick(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._timer = loop.call_later(TICK_S, self._tick, loop, clock)
        self.look(clock())


def _expire(late: Expiring, now_s: float) -> None:
    try:
        late.expire(now_s)
    except Exception:
        late.break_down(now_s)
        raise
