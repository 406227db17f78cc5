"""How the clients of a listener are let go when the gateway stops, so that no request is dropped.

    0 s          what was accepted is served, each response says `Connection: close`
    idle_s       idle connections are closed, the longest idle first, over one second
    2/3 of the   tunnels are closed (1001 for WebSocket), spread until the end
    timeout
    timeout_s    what is still in hand gets 503 `draining`, or is cut off inside its response
    + 1 s        the end of every connection that has not been read to its end by then

No connection is closed at the very start: a request may be on its way on any that looks idle, and
its client does not know yet that the gateway stops. What ends many connections is spread, because
their clients come back at the same time somewhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, inf

from gateway.edge.protocol import ClientConnection

TICK_S = 0.1
_IDLE_SPREAD_S = 1.0
_LAST_WORDS_S = 1.0
# Connections that are ended in one turn of the loop; others have to get their turn.
_MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    """Times in seconds from the closing of the listener; an `idle_s` of 0 closes idle ones now."""

    idle_s: float
    timeout_s: float


class Drain:
    """Ends the connections of one listener that accepts no more.

    `connections` gives those that are open, `beginning_count` how many accepted ones have no
    protocol yet. Setting `hurry` ends it all now.
    """

    def __init__(
        self,
        times: DrainTimes,
        *,
        connections: Callable[[], list[ClientConnection]],
        beginning_count: Callable[[], int],
        hurry: asyncio.Event,
    ) -> None:
        self._times = times
        self._connections = connections
        self._beginning_count = beginning_count
        self._hurry = hurry
        self._clock = asyncio.get_running_loop().time
        self._started_s = self._clock()
        self._quota = 0

    async def wait(self) -> None:
        """Let the connections end by themselves, as far as they do so in time."""
        for one in self._connections():
            one.finish()
        end_s = self._started_s + self._times.timeout_s
        while not self._is_over and not self._hurry.is_set():
            now_s = self._clock()
            if now_s >= end_s:
                return
            await self._close_idle(now_s)
            await self._close_tunnels(now_s, end_s)
            if not self._is_over:
                await self._tick()

    async def end(self) -> None:
        """End the connections that are left, and give what was said last a second to be read."""
        await self._each(self._connections(), ClientConnection.cut)
        end_s = self._clock() + (TICK_S if self._hurry.is_set() else _LAST_WORDS_S)
        # Nothing tells when the last one is gone.
        while self._connections() and self._clock() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(TICK_S / 4)
        await self._each(self._connections(), ClientConnection.drop)
        await asyncio.sleep(0)  # the transports close in the next turn of the loop

    @property
    def _is_over(self) -> bool:
        return not self._connections() and not self._beginning_count()

    async def _close_idle(self, now_s: float) -> None:
        idle_s = self._times.idle_s
        if now_s < self._started_s + idle_s:
            return
        due = [one for one in self._connections() if self._is_due(one, now_s)]
        due.sort(key=_idle_since_s)
        self._quota = max(self._quota, ceil(len(due) * TICK_S / _IDLE_SPREAD_S))
        count = self._quota if idle_s else len(due)
        await self._each(due[:count], _close_if_idle)

    def _is_due(self, one: ClientConnection, now_s: float) -> bool:
        """Tell whether a connection has been idle for so long while the gateway stops."""
        since_s = one.idle_since_s
        return since_s < inf and max(since_s, self._started_s) + self._times.idle_s <= now_s

    async def _close_tunnels(self, now_s: float, end_s: float) -> None:
        if now_s < end_s - self._times.timeout_s / 3:
            return
        tunnels = [one for one in self._connections() if one.is_tunnel]
        ticks_left = max(1.0, (end_s - now_s) / TICK_S)
        await self._each(tunnels[: ceil(len(tunnels) / ticks_left)], ClientConnection.cut)

    async def _each(
        self, connections: Iterable[ClientConnection], do: Callable[[ClientConnection], None]
    ) -> None:
        for count, one in enumerate(connections, 1):
            do(one)
            if count % _MOST_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _tick(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._hurry.wait()


def _idle_since_s(one: ClientConnection) -> float:
    return one.idle_since_s


def _close_if_idle(one: ClientConnection) -> None:
    """Close a connection, unless its client has asked for something meanwhile."""
    if one.idle_since_s < inf:
        one.shutdown()
