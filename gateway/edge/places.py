"""The limits on clients' connections, counted over all listeners from accept to close.

A connection takes its place before anything is read of it, so a client in a TLS handshake, or one
that has sent no PROXY header yet, counts like any other.

Where all places are taken, the connection that has been idle for longest gives way to a new one, so
that clients which keep connections for nothing keep nobody out. One that has asked for nothing yet,
or is in its handshake, gives way too, but not at once; one with a request in hand never does. What
counts by address is not helped by that: whoever is over that limit has to close one of its own.

A connection over a limit may still be told so with a 503, but only a few at once: what refuses must
stay cheap, and those that are being refused hold file descriptors beside the limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Protocol

import structlog

from gateway.core.message import Peer
from gateway.core.room import Room

_log = structlog.get_logger()

_LOG_EVERY_S = 60.0


class Holder(Protocol):
    """A connection that may have to give way."""

    @property
    def spare_since_s(self) -> float:
        """Since when it is idle (loop time), inf while it may not be closed for another one."""
        ...

    def give_way(self, *, at_once: bool) -> None:
        """Close it, `at_once` without a word to its client."""
        ...


class Place:
    """What one open connection counts for; `refusal` says which limit it is over, or is None.

    `address` is what it is counted under, b"" where it is not counted by address. `holder` is the
    connection, None as long as there is nothing of it to be closed.
    """

    __slots__ = ("_places", "address", "gave_way", "holder", "is_left", "refusal")

    def __init__(self, places: Places, address: bytes, refusal: str | None) -> None:
        self._places = places
        self.address = address
        self.refusal = refusal
        self.holder: Holder | None = None
        self.gave_way = False
        self.is_left = False

    @property
    def spare_since_s(self) -> float:
        """Since when its connection is idle, inf while it may not be closed for another one."""
        return inf if self.holder is None else self.holder.spare_since_s

    def name(self, peer: Peer) -> None:
        """Count the connection for this peer from now on: a proxy has named it."""
        self._places.rename(self, _address_of(peer))

    @property
    def is_counted(self) -> bool:
        """Whether it counts for the limits: neither refused nor given up."""
        return self.refusal is None and not (self.is_left or self.gave_way)

    def give_way(self) -> None:
        """Close the connection, and let another one have the place now."""
        self._places.give_way(self)

    def leave(self) -> None:
        """Give the place back; further calls do nothing."""
        if not self.is_left:
            self.is_left = True
            self._places.left(self)
            self.holder = None  # which knows its place: or only the collector would free both


class Places:
    """All open connections: how many there are, and how many from each address.

    Trusted proxies, behind which many clients stand, and peers without an address are not counted
    by address. Both limits are numbers of connections; 0 for an address is no limit. Beside them
    `most_beside` refused ones may be open at once, to read their 503, and as many that gave way, to
    end as idle ones do. `tick` gives the time of the coarse clock (seconds).
    """

    def __init__(
        self,
        *,
        max_connections: int,
        max_per_address: int,
        most_beside: int,
        tick: Callable[[], float],
    ) -> None:
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self.most_beside = most_beside
        self.count = 0
        self.refused_count = 0
        self.giving_way_count = 0
        self._tick = tick
        self._room: Room[Place] = Room()
        self._by_address: Counter[bytes] = Counter()
        self._unlogged_count = 0
        self._logged_at_s: float | None = None

    def __repr__(self) -> str:
        return f"<Places {self.count} taken, {self.refused_count} refused>"

    def enter(self, peer: Peer) -> Place:
        """Take a place for a new connection, or one of those for refused ones."""
        address = _address_of(peer)
        refusal = self._refusal_of_address(address)
        if refusal is None and self.is_full and not self._make_room():
            refusal = f"there are {self.max_connections} connections already"
        if refusal is not None:
            self.refused_count += 1
            return Place(self, b"", refusal)
        self.count += 1
        self._add(address)
        place = Place(self, address, None)
        self._room.add(place)
        return place

    def rename(self, place: Place, address: bytes) -> None:
        """Count a connection for another address; it is refused when that one has too many."""
        if place.refusal is not None or place.gave_way:
            return
        self._remove(place.address)
        place.refusal = self._refusal_of_address(address)
        if place.refusal is not None:
            self._room.discard(place)
            self.count -= 1
            self.refused_count += 1
            address = b""
        place.address = address
        self._add(address)

    def left(self, place: Place) -> None:
        """Count one connection less."""
        if place.gave_way:
            self.giving_way_count -= 1
        elif place.refusal is None:
            self._room.discard(place)
            self.count -= 1
            self._remove(place.address)
        else:
            self.refused_count -= 1

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return self.count >= self.max_connections

    @property
    def is_crowded(self) -> bool:
        """Whether there are too many refused connections to tell one more why."""
        return self.refused_count > self.most_beside

    def log_refusal(self, refusal: str, now_s: float) -> None:
        """Log that connections are refused, once a minute for as long as that goes on."""
        self._unlogged_count += 1
        if self._logged_at_s is None or now_s - self._logged_at_s >= _LOG_EVERY_S:
            self._logged_at_s = now_s
            _log.warning("connections_refused", reason=refusal, count=self._unlogged_count)
            self._unlogged_count = 0

    def _make_room(self) -> bool:
        """Close one connection for another; False where there is none that may be closed."""
        place = self._room.longest_idle(self._tick())
        if place is None:
            return False
        self.give_way(place)
        return True

    def give_way(self, place: Place) -> None:
        """Close a connection that is counted, and count it no longer."""
        assert place.holder is not None, "there is nothing to be closed"
        self._room.discard(place)
        self.count -= 1
        self._remove(place.address)
        place.gave_way = True
        self.giving_way_count += 1
        place.holder.give_way(at_once=self.giving_way_count > self.most_beside)

    def _refusal_of_address(self, address: bytes) -> str | None:
        if address and 0 < self.max_per_address <= self._by_address[address]:
            return f"there are {self.max_per_address} from this address already"
        return None

    def _add(self, address: bytes) -> None:
        if address:
            self._by_address[address] += 1

    def _remove(self, address: bytes) -> None:
        if address:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]


def _address_of(peer: Peer) -> bytes:
    """Return the address that a connection of this peer is counted for, b"" for none."""
    return b"" if peer.is_trusted else peer.address
