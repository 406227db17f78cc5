"""What the connections of the fast face share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.message import Peer
from gateway.edge.reader import ReaderLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceOptions:
    """What the fast face needs to know. All times are seconds; a `…_per_…` of 0 is no limit."""

    head_timeout_s: float = 10.0
    keepalive_timeout_s: float = 75.0
    max_connections: int = 10_000
    max_connections_per_address: int = 0
    max_requests_per_connection: int = 0
    reader: ReaderLimits = field(default_factory=ReaderLimits)


class ServerState(Protocol):
    """What uvicorn shares among the connections of a listener."""

    total_requests: int
    connections: set[Any]


class ConnectionCounts:
    """How many connections of clients there are: `total` of all listeners, and from each address.

    No address is counted for trusted proxies, for many clients stand behind one, nor for those
    without an address.
    """

    def __init__(self) -> None:
        self.total = 0
        self._counts: Counter[bytes] = Counter()

    def __repr__(self) -> str:
        return f"<ConnectionCounts {dict(self._counts)}>"

    def enter(self, peer: Peer) -> int:
        """Count one more; return how many its address has now, 0 if that is not counted."""
        self.total += 1
        if peer.is_trusted or not peer.address:
            return 0
        self._counts[peer.address] += 1
        return self._counts[peer.address]

    def leave(self, peer: Peer) -> None:
        """Count one less."""
        self.total -= 1
        if not peer.is_trusted and peer.address:
            self._counts[peer.address] -= 1
            if not self._counts[peer.address]:
                del self._counts[peer.address]
