"""One coarse clock for all timeouts.

A timer for each request would cost more than the request. So every Exchange carries the instant at
which it has waited too long, and one tick, ten times a second, looks for those that have. A timeout
is therefore late by up to a tick, which nobody notices at the scale of seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.proxy.alarms import Alarms, guarded

TICK_S = 0.1
_TICKS_BETWEEN_SWEEPS = 10
_LAG_KEPT = 0.8
_LATE_AT_ONCE = 8


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
    """The clock and those who wait by it. `watched` and `swept` are written by whoever waits.

    `lag_s` is how late the loop was of late: the latest tick, older ones counting less.
    """

    __slots__ = (
        "_late",
        "_loop",
        "_ticks",
        "_timer",
        "alarms",
        "lag_s",
        "now_s",
        "swept",
        "watched",
    )

    def __init__(self) -> None:
        self.alarms = Alarms()
        self.lag_s = 0.0
        self.watched: set[Expiring] = set()
        self.swept: set[Sweepable] = set()
        self.now_s = 0.0
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._late: deque[Expiring] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to tick in this loop."""
        self._loop = loop
        self.alarms.start(loop)
        self._tick(loop, loop.time, due_s=loop.time())

    def stop(self) -> None:
        """Tick no more."""
        self._loop = None
        self._late.clear()
        self.alarms.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, now_s: float) -> None:
        """Tell everybody whose deadline has passed; done by each tick.

        While it ticks in a loop, many are told a few at a time, so that nobody has to wait for
        thousands that gave up at the same moment. What one of them raises ends that one, and the
        loop tells it; the others hear what they have to hear. Without a loop it comes out here.
        """
        self.now_s = now_s
        self.alarms.ring(now_s)
        if not self._late:
            self._late.extend([one for one in self.watched if one.deadline_s <= now_s])
        self._expire_some(now_s)
        self._ticks += 1
        if self._ticks % _TICKS_BETWEEN_SWEEPS == 0:
            for sweepable in tuple(self.swept):
                guarded(self._loop, sweepable.sweep, None, now_s)

    def _expire_some(self, now_s: float) -> None:
        late, loop = self._late, self._loop
        for _ in range(len(late) if loop is None else min(len(late), _LATE_AT_ONCE)):
            one = late.popleft()
            # One that expired may have settled another, and one that waited here has moved on.
            if one in self.watched and one.deadline_s <= now_s:
                self._expire(one, now_s)
        if late and loop is not None:
            loop.call_soon(self._expire_more)

    def _expire(self, one: Expiring, now_s: float) -> None:
        if not guarded(self._loop, one.expire, one.break_down, now_s):
            self.watched.discard(one)  # or it would be told in each tick for ever

    def _expire_more(self) -> None:
        if self._loop is not None:
            self._expire_some(self._loop.time())

    def _tick(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], due_s: float
    ) -> None:
        now_s = clock()
        self.lag_s = max(now_s - due_s, self.lag_s * _LAG_KEPT)
        self._timer = loop.call_later(TICK_S, self._tick, loop, clock, now_s + TICK_S)
        self.look(now_s)
