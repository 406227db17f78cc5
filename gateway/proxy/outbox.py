"""What is written to many connections in one turn of the loop, sent together at its end.

A write wakes whoever waits for it at the other end, and to wake somebody costs more than the write.
In a turn the loop reads from all connections on which something has come. If each of them were
answered at once, the other end would be woken, find one thing to do, and sleep again, for each.
Sent together, some dozens at a time, it comes faster than it is done, and nobody falls asleep.

The one rule: what is written to a transport keeps its order. Whoever closes a transport, or ends a
direction of it, lets the Outbox go first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

# Pieces of this size are worth being sent for themselves, and must not pile up here.
SMALL_BYTES: Final = 16 * 1024
# So many are enough to keep the other end awake; more would only wait for longer.
MOST_WAITING: Final = 32


class Writable(Protocol):
    """What an Outbox needs of a transport."""

    def write(self, data: bytes) -> None:
        """Send, or keep what cannot be sent yet."""
        ...

    def is_closing(self) -> bool:
        """Tell whether nothing is sent any more."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


def _at_end_of_turn(act: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(act)


class Outbox:
    """All that is still to be written in this turn, in order.

    `when` is given what sends it, once for each turn in which there is something to send. `round`
    counts how often it was sent: what was written in this round is still here.
    """

    __slots__ = ("_waiting", "_when", "round")

    def __init__(self, when: Callable[[Callable[[], None]], None] = _at_end_of_turn) -> None:
        self._waiting: deque[tuple[Writable, bytes]] = deque()
        self._when = when
        self.round = 0

    def __repr__(self) -> str:
        return f"<Outbox {len(self._waiting)} waiting>"

    def write(self, transport: Writable, data: bytes) -> None:
        """Send this at the end of the turn, or now with all that waits: if it is large, or many."""
        waiting = self._waiting
        waiting.append((transport, data))
        count = len(waiting)
        if len(data) >= SMALL_BYTES or count == MOST_WAITING:
            self.send()
        elif count == 1:
            self._when(self.send)

    def send(self) -> None:
        """Send all that waits; what its transport will not take any more is dropped.

        Whoever calls it may be anybody, so nothing is raised: a mistake ends its own transport.
        """
        self.round += 1
        waiting = self._waiting
        while waiting:
            transport, data = waiting.popleft()
            if not transport.is_closing():
                try:
                    transport.write(data)
                except Exception as error:  # noqa: BLE001 -- whatever it is, the loop tells it
                    _end(transport, error)


def _end(transport: Writable, error: Exception) -> None:
    told = {"message": "a write failed", "exception": error, "transport": transport}
    asyncio.get_running_loop().call_exception_handler(told)
    transport.abort()
