"""Bytes that were read and are not looked at yet: some of them in each turn of the loop.

One read may bring thousands of small things to do: pipelined requests, chunks of one byte, empty
WebSocket frames. Done at once, they would stop every other connection for as long. So a connection
does one share of such work, puts the rest off and stops reading; here all connections with such a
rest take turns, for a few milliseconds in each turn of the loop, however many they are. Peers take
turns first, then the connections of each: hundreds of connections are worth no more than one.

The first share of a read is done at once, but a long read only while these milliseconds last: a
head of 8 KB may take as many, and a hundred of them may come in one turn.

A usual connection never comes here: what it sends is short, and one share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Final, Protocol

# Long enough to be worth a turn of the loop, short enough that nobody notices it.
TURN_S: Final = 0.004
# A shorter read is looked at whenever it comes: none of them takes long.
LONG_READ_BYTES: Final = 1024


class Postponed(Protocol):
    """A connection that has put bytes off."""

    def go_on(self) -> None:
        """Look at the next share of them; puts off again what is left after that."""
        ...


def _in_next_turn(act: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(act)


class Backlog:
    """The connections that have put bytes off, by peer, in the order in which they did.

    `clock` tells seconds; `when` is given what looks at the next shares, once for each turn.
    """

    __slots__ = ("_clock", "_is_due", "_lines", "_turn", "_until_s", "_when")

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        when: Callable[[Callable[[], None]], None] = _in_next_turn,
    ) -> None:
        self._clock = clock
        self._when = when
        self._is_due = False
        self._until_s = 0.0
        self._turn = 0
        # For each peer its connections, each with the turn in which it came.
        self._lines: dict[Hashable, dict[Postponed, int]] = {}

    def __repr__(self) -> str:
        return f"<Backlog {sum(map(len, self._lines.values()))} waiting>"

    def add(self, connection: Postponed, peer: Hashable) -> None:
        """Let this connection of `peer` go on in a later turn; it stands in line once at most."""
        line = self._lines.get(peer)
        if line is None:
            self._lines[peer] = {connection: self._turn}
        else:
            line.setdefault(connection, self._turn)
        self._begin_turn()

    def is_over(self) -> bool:
        """Tell whether the time for long reads is used up in this turn.

        It begins with the first of them, or with the first connection that puts bytes off.
        """
        if not self._is_due:
            self._begin_turn()
            return False
        return self._clock() >= self._until_s

    def run(self) -> None:
        """Give each connection its share, until the time of this turn is over.

        Never raises: an error of one connection is for the loop to tell, and ends nobody else.
        """
        clock, lines = self._clock, self._lines
        self._turn += 1
        self._until_s = until_s = clock() + TURN_S
        done_count = 0  # of lines in a row whose connections have all had their share
        while done_count < len(lines):
            peer = next(iter(lines))
            line = lines.pop(peer)
            connection, turn = next(iter(line.items()))
            # Whoever puts off again waits for the next turn: or a single one would go on and on.
            if turn == self._turn:
                lines[peer] = line
                done_count += 1
                continue
            del line[connection]
            if line:
                lines[peer] = line
            done_count = 0
            _go_on(connection)
            if clock() >= until_s:
                break
        # Long reads of this turn still have to hear that its time is over.
        self._is_due = bool(lines) or clock() >= until_s
        if self._is_due:
            self._when(self.run)

    def discard(self, connection: Postponed, peer: Hashable) -> None:
        """Forget a connection that is closed."""
        line = self._lines.get(peer)
        if line is not None and line.pop(connection, None) is not None and not line:
            del self._lines[peer]

    def _begin_turn(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._until_s = self._clock() + TURN_S
            self._when(self.run)


def _go_on(connection: Postponed) -> None:
    try:
        connection.go_on()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the loop tells it
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a connection could not go on", "exception": error}
        )
