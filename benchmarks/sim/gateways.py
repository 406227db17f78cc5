"""A gateway of the simulation: a real Engine, on played time, with played sides.

Its clients ask whenever chance says so, however long answers take (open loop).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import cycle
from random import Random
from typing import Any, cast

from benchmarks.sim.connections import Network, SimPool
from benchmarks.sim.instance import PlayedInstance
from benchmarks.sim.ledger import Ejection, Ledger
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.fleet import Member
from gateway.core.message import AnswerHead, Fields, Peer, Request
from gateway.core.model import Instance, Snapshot
from gateway.proxy.deadlines import Deadlines, Expiring
from gateway.proxy.ending import Ending
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import ConnectionPool

_PEERS = [Peer(b"192.0.2.%d" % host, b"http", is_trusted=False) for host in range(1, 255)]
_LINES = b"\r\nHost: example.com\r\nAccept: */*"


class SimGateway:
    """One gateway with its clients. Implements Observer.

    `number` tells it from the others; `instances` are all there will ever be, by key.
    """

    def __init__(
        self,
        number: int,
        network: Network,
        instances: Mapping[str, PlayedInstance],
        ledger: Ledger,
        random: Random,
    ) -> None:
        self.number = number
        self._network = network
        self._timeline = network.timeline
        self._instances = instances
        self._ledger = ledger
        self._random = random
        self._peers = cycle(_PEERS)
        self._routable: frozenset[str] = frozenset()
        self._deadlines = Deadlines()
        self._deadlines.watched = _InOrder()
        self._rate = 0.0
        self._post_share = 0.0
        self.engine = Engine(
            self._make_pool,
            random=random.random,
            wall_clock=self._timeline.time,
            observer=self,
            deadlines=self._deadlines,
        )

    def __repr__(self) -> str:
        return f"<SimGateway {self.number}, {self._rate:g}/s>"

    @property
    def is_busy(self) -> bool:
        """Whether it has any request in hand."""
        return bool(self._deadlines.watched)

    def start(self, config: RoutingConfig) -> None:
        """Begin to route, as yet without knowing any instance."""
        self.engine.use(config, client_body_timeout_s=60.0)
        # Of a loop it wants no more than the time and timers.
        self._deadlines.start(cast("asyncio.AbstractEventLoop", self._timeline))

    def follow(self, snapshot: Snapshot) -> None:
        """Hear what the registry says."""
        routable = frozenset(one.key for one in snapshot.instances if one.is_routable)
        now_s = self._timeline.now_s
        gone = sorted(self._routable - routable)
        self._ledger.ejections.extend(Ejection(now_s, self.number, key) for key in gone)
        self._routable = routable
        self.engine.follow(snapshot)

    def send(self, rate: float, *, post_share: float) -> None:
        """Let clients send so many requests a second, and none with a rate of 0."""
        was_idle, self._rate, self._post_share = not self._rate, rate, post_share
        if was_idle and rate:
            self._send_later()

    def _send_later(self) -> None:
        self._timeline.call_later(self._random.expovariate(self._rate), self._send)

    def _send(self) -> None:
        if not self._rate:
            return
        method = b"POST" if self._random.random() < self._post_share else b"GET"
        request = Request(method, b"/x", b"", _LINES, host=b"example.com")
        request.peer = next(self._peers)
        request.request_id = b"-"
        self.engine.exchange(request, _CLIENT).begin(self._timeline.now_s)
        self._send_later()

    def _make_pool(self, _service: ServiceConfig, instance: Instance) -> ConnectionPool:
        played = self._instances[instance.key]
        return SimPool(self.number, played, self._network, self._ledger)

    # --- The engine tells ------------------------------------------------------------------------

    def settled(self, exchange: Ending, now_s: float) -> None:
        """Take note of a request that is over."""
        del now_s
        self._ledger.settled(self.number, exchange)

    def breaker_changed(self, service: str, member: Member[ConnectionPool], now_s: float) -> None:
        """Take note of a Breaker that opened or closed."""
        del service
        if not member.breaker.would_admit(now_s):
            self._ledger.opened(self.number, member.instance.key, now_s, in_flight=member.in_flight)


class _InOrder(set[Expiring]):
    """A set that gives what is in it in the order in which it came, so that a run can be repeated.

    That of a plain set depends on where in memory things are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._order: dict[Any, None] = {}

    def __iter__(self) -> Iterator[Expiring]:
        return iter(self._order)

    def add(self, one: Expiring) -> None:
        super().add(one)
        self._order[one] = None

    def discard(self, one: object) -> None:
        super().discard(one)
        self._order.pop(one, None)


class _Client:
    """All clients: they take whatever comes, and what came is read off the Exchange."""

    def send_interim(self, status: int, fields: Fields) -> None: ...
    def send_head(self, head: AnswerHead) -> None: ...
    def send_body(self, chunk: bytes) -> None: ...
    def send_end(self, trailers: Fields) -> None: ...
    def send_answer(self, head: AnswerHead, body: bytes) -> None: ...
    def abort(self) -> None: ...
    def flush(self) -> None: ...
    def unsent_bytes(self) -> int | None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def hand_over(self, exchange: Exchange) -> None: ...
    def shutdown(self) -> None: ...


_CLIENT = _Client()
