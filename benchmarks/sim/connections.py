"""The connections of a gateway to an instance, played: connecting, sending and failing take time.

The rules for whom an idle connection is good enough are those of `gateway.proxy.pool`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.sim.instance import PlayedInstance
from benchmarks.sim.ledger import Ledger
from benchmarks.sim.timeline import Timeline
from gateway.core.failure import Failure
from gateway.core.message import AnswerHead
from gateway.proxy.pool import TRUSTED_IDLE_S
from gateway.proxy.sides import Carried

_BODY = b"ok"
_LINES = b"\r\nContent-Length: 2"


class Network:
    """What lies between gateways and instances: everything takes `one_way_s` to get across."""

    def __init__(self, timeline: Timeline, *, one_way_s: float) -> None:
        self.timeline = timeline
        self._one_way_s = one_way_s

    def carry(self, act: Callable[..., object], *args: Any) -> None:
        """Let something happen at the other end."""
        self.timeline.call_later(self._one_way_s, act, *args)


class SimPool:
    """The connections to one instance. Implements ConnectionPool.

    `gateway` is the number of whoever has it; `ledger` counts.
    """

    def __init__(
        self, gateway: int, instance: PlayedInstance, network: Network, ledger: Ledger
    ) -> None:
        self.instance = instance
        self.network = network
        self.ledger = ledger
        self._gateway = gateway
        self._idle: list[Link] = []
        self._connecting: dict[Carried, Link] = {}
        self._is_retired = False

    def __repr__(self) -> str:
        return f"<SimPool {self.instance!r}, {len(self._idle)} idle>"

    # --- The Exchange tells ---------------------------------------------------------------------

    def acquire(self, exchange: Carried, now_s: float) -> Link | None:
        """Give an idle connection, or None and start one."""
        if self._idle:
            trusted_since_s = now_s - TRUSTED_IDLE_S
            if exchange.is_repeatable or self._idle[-1].idle_since_s >= trusted_since_s:
                self.ledger.attempted(self._gateway, self.instance, now_s)
                return self._idle.pop()
        self.open_for(exchange)
        return None

    def open_for(self, exchange: Carried) -> None:
        """Start a connection."""
        self.ledger.attempted(self._gateway, self.instance, self.network.timeline.now_s)
        link = self._connecting[exchange] = Link(self)
        self.network.carry(self._knock, exchange, link)

    def abandon(self, exchange: Carried) -> None:
        """Forget that this one waits for a connection."""
        del self._connecting[exchange]

    def retire(self) -> None:
        """Close what is idle now, and everything else when it has nothing in hand any more."""
        self._is_retired = True
        while self._idle:
            self._idle.pop().abort()

    # --- Links tell ------------------------------------------------------------------------------

    def take_back(self, link: Link) -> None:
        """Keep a connection for the next one."""
        if self._is_retired:
            link.abort()
        else:
            self._idle.append(link)

    def lost(self, link: Link) -> None:
        """Forget a connection that was closed while it was idle."""
        self._idle.remove(link)

    # --- The network -----------------------------------------------------------------------------

    def _knock(self, exchange: Carried, link: Link) -> None:
        is_taken = self.instance.connect(link)
        if is_taken is not None:
            self.network.carry(self._hear, exchange, link, is_taken)

    def _hear(self, exchange: Carried, link: Link, is_taken: bool) -> None:  # noqa: FBT001
        if self._connecting.get(exchange) is not link:
            link.abort()  # nobody waits for it any more
            return
        del self._connecting[exchange]
        if is_taken:
            exchange.upstream_ready(link, self.network.timeline.now_s)
        else:
            now_s = self.network.timeline.now_s
            exchange.upstream_failed(Failure.CONNECT_FAILED, "refused", now_s)


class Link:
    """One connection. Implements Connection for the engine, and Asking for the instance."""

    __slots__ = ("_exchange", "_is_open", "_keeps_alive", "_pool", "_was_used", "idle_since_s")

    def __init__(self, pool: SimPool) -> None:
        self.idle_since_s = 0.0
        self._pool = pool
        self._exchange: Carried | None = None
        self._is_open = True
        self._keeps_alive = True
        self._was_used = False

    # --- The Exchange tells ---------------------------------------------------------------------

    def begin(self, exchange: Carried, request: bytes) -> None:
        """Carry this Exchange from now on, and send its request."""
        del request
        self._exchange = exchange
        self._pool.ledger.sent(self._pool.network.timeline.now_s)
        self._pool.network.carry(self._pool.instance.receive, self)

    def write(self, chunk: bytes) -> None:
        """Send nothing more: requests have no body here."""

    def pause_reading(self) -> None:
        """Go on: answers come whole."""

    def resume_reading(self) -> None:
        """Go on."""

    def finish(self, now_s: float) -> None:
        """Let the Exchange go after its answer."""
        self._exchange = None
        self._was_used = True
        self.idle_since_s = now_s
        if self._keeps_alive:
            self._pool.take_back(self)
        else:
            self.abort()

    def leave(self) -> None:
        """Let the Exchange go, and close."""
        self.abort()

    def abort(self) -> None:
        """Let the Exchange go and close at once."""
        self._exchange = None
        self._is_open = False
        self._pool.network.carry(self._pool.instance.forget, self)

    # --- The instance tells ----------------------------------------------------------------------

    def answer(self, status: int, *, keeps_alive: bool) -> None:
        """Send an answer on its way."""
        self._pool.network.carry(self._hear, status, keeps_alive)

    def lose(self) -> None:
        """Send the end of the connection on its way."""
        self._pool.network.carry(self._break)

    def _hear(self, status: int, keeps_alive: bool) -> None:  # noqa: FBT001
        if self._exchange is not None:
            self._keeps_alive = keeps_alive
            head = AnswerHead(status, b"", _LINES)
            head.length, head.has_date = len(_BODY), True
            self._exchange.upstream_answer(head, _BODY, self._pool.network.timeline.now_s)

    def _break(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self._pool.lost(self)
            return
        failure = Failure.STALE_CONNECTION if self._was_used else Failure.DISCONNECTED_EARLY
        exchange.upstream_failed(failure, "closed", self._pool.network.timeline.now_s)
