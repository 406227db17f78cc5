"""Bytes that were read and are not looked at yet: some of them in each turn of the loop.

One read may bring thousands of small things to do: pipelined requests, chunks of one byte, empty
WebSocket frames. Done at once, they would stop every other connection for as long. So a connection
does one share of such work, puts the rest off and stops reading; here all connections with such a
rest take turns, for a few milliseconds in each turn of the loop, however many they are.

A usual connection never comes here: what it sends is one share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

# Long enough to be worth a turn of the loop, short enough that nobody notices it.
TURN_S: Final = 0.004


class Postponed(Protocol):
    """A connection that has put bytes off."""

    def go_on(self) -> None:
        """Look at the next share of them; puts off again what is left after that."""
        ...


def _in_next_turn(act: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(act)


class Backlog:
    """The connections that have put bytes off, in the order in which they did.

    `clock` tells seconds; `when` is given what looks at the next shares, once for each turn.
    """

    __slots__ = ("_clock", "_is_due", "_waiting", "_when")

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        when: Callable[[Callable[[], None]], None] = _in_next_turn,
    ) -> None:
        self._clock = clock
        self._when = when
        self._is_due = False
        self._waiting: dict[Postponed, None] = {}

    def __repr__(self) -> str:
        return f"<Backlog {len(self._waiting)} waiting>"

    def add(self, connection: Postponed) -> None:
        """Let this connection go on in a later turn; it stands in line once at most."""
        self._waiting[connection] = None
        if not self._is_due:
            self._is_due = True
            self._when(self.run)

    def run(self) -> None:
        """Give each connection its share, until the time of this turn is over.

        Never raises: an error of one connection is for the loop to tell, and ends nobody else.
        """
        clock, waiting = self._clock, self._waiting
        until_s = clock() + TURN_S
        # Whoever puts off again waits for the next turn: or a single one would go on and on.
        for connection in tuple(waiting):
            if connection not in waiting:
                continue  # it was closed meanwhile
            del waiting[connection]
            try:
                connection.go_on()
            except Exception as error:  # noqa: BLE001 -- whatever it is, the loop tells it
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a connection could not go on", "exception": error}
                )
            if clock() >= until_s:
                break
        self._is_due = bool(waiting)
        if waiting:
            self._when(self.run)

    def discard(self, connection: Postponed) -> None:
        """Forget a connection that is closed."""
        self._waiting.pop(connection, None)
