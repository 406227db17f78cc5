"""An Engine on a stage: one route, one service, played sides, and time as numbers.

The rule: chance always draws 0 and time passes only when told, so each play has one course. The
sides are those of `tests.fakes.sides`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.core.breaker import BreakerState
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.fleet import Fleet, Member
from gateway.core.message import Fields, Peer, Request, lines_of
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import (
    BalancingPolicy,
    BreakerPolicy,
    ConcurrencyPolicy,
    PriorityClass,
    RetryPolicy,
    Timeouts,
)
from gateway.core.routing import Route, RouteMatch
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import ConnectionPool
from gateway.runtime.backlog import TURN_S, Backlog
from tests.fakes.clock import FakeClock
from tests.fakes.outbox import at_once
from tests.fakes.sides import FakeClient, FakeConnection, FakePool, RecordingObserver

SERVICE = "user-service"
WALL_CLOCK_S = 784111777.0  # RFC 9110 §5.6.7: Sun, 06 Nov 1994 08:49:37 GMT
DATE = (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One request between its played sides."""

    exchange: Exchange
    client: FakeClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What the one route and the one service of a Stage are configured to do."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    balancing: BalancingPolicy = field(default_factory=BalancingPolicy)
    client_body_timeout_s: float = 60.0
    limit: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)
    service_limit: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)
    max_per_instance: int | None = None
    max_tunnels: int | None = None
    priority_class: PriorityClass = PriorityClass.NORMAL
    deadline_header: bytes = b""


class Stage:
    """An Engine with one route, /api, to one service whose instances are "a", "b", "c".

    Chance always draws 0, so that the least loaded comes first and "a" before "b". `clock` is for
    numbers only. `instances` None means that the registry has told nothing yet. `client_address` is
    where the next requests come from.
    """

    def __init__(self, instances: str | None = "abc", policies: Policies | None = None) -> None:
        self.policies = policies or Policies()
        self.clock = FakeClock()
        self.client_address = b"192.0.2.1"
        self.deadlines = Deadlines()
        self.turns: list[Callable[[], None]] = []
        self.work_clock = FakeClock()
        self.observer = RecordingObserver()
        self.pools: dict[str, FakePool] = {}
        self.engine = Engine(
            self._make_pool,
            random=lambda: 0.0,
            wall_clock=lambda: WALL_CLOCK_S,
            observer=self.observer,
            deadlines=self.deadlines,
            outbox=at_once(),
            backlog=Backlog(self.work_clock, self.turns.append),
            tells_details=True,
        )
        self.route()
        if instances is not None:
            self.publish(instance(key) for key in instances)

    def use_up_turn(self) -> None:
        """Let somebody else's long reads take all the time that this turn of the loop has."""
        assert not self.engine.backlog.is_over()
        self.work_clock.advance(TURN_S)

    def pass_turns(self) -> None:
        """Let the turns of the loop pass that anybody waits for."""
        while self.turns:
            self.turns.pop(0)()

    @property
    def fleet(self) -> Fleet[ConnectionPool]:
        """The live state of the one service."""
        return self.engine.fleets[SERVICE]

    def route(self, *routes: Route) -> None:
        """Configure these routes, by default the one."""
        service = ServiceConfig(
            name=SERVICE,
            breaker=self.policies.breaker,
            balancing=self.policies.balancing,
            limit=self.policies.service_limit,
            max_per_instance=self.policies.max_per_instance,
            max_tunnels=self.policies.max_tunnels,
        )
        config = RoutingConfig(routes=routes or (self.api(),), services={SERVICE: service})
        self.engine.use(config, client_body_timeout_s=self.policies.client_body_timeout_s)

    def api(self, path: bytes = b"/api", priority_class: PriorityClass | None = None) -> Route:
        """Make the one route, or another one like it."""
        return Route(
            id=path.decode().removeprefix("/"),
            match=RouteMatch(path=path),
            service=SERVICE,
            limit=self.policies.limit,
            priority_class=self.policies.priority_class
            if priority_class is None
            else priority_class,
            deadline_header=self.policies.deadline_header,
            timeouts=self.policies.timeouts,
            retry=self.policies.retry,
        )

    def publish(self, instances: Iterable[Instance]) -> None:
        """Let the registry tell these instances."""
        self.engine.follow(Snapshot(service=SERVICE, instances=tuple(instances), source="test"))

    def member(self, key: str) -> Member[ConnectionPool]:
        """Look up an instance."""
        return self.fleet.members[key]

    def breaker_state(self, key: str) -> BreakerState:
        """Tell how the Breaker of an instance is now."""
        return self.member(key).breaker.state(self.clock())

    def open_breaker(self, key: str) -> None:
        """Let an instance fail until it is left alone."""
        breaker = self.member(key).breaker
        while not breaker.is_shut:
            permit = breaker.admit(self.clock()) or breaker.admit_anyway()
            breaker.failed(permit, self.clock(), why="test", chance=0.0, was_reached=False)

    def request(
        self, method: bytes = b"GET", length: int | None = 0, path: bytes = b"/api/x"
    ) -> Request:
        """Write a request; its body has `length` bytes, None for chunked."""
        fields = [(b"Host", b"example.com"), (b"Accept", b"*/*")]
        if length:
            fields.append((b"Content-Length", b"%d" % length))
        request = Request(method, path, b"?q=1", lines_of(fields), b"example.com")
        request.length = length
        request.peer = Peer(self.client_address, b"http", is_trusted=False)
        request.request_id = b"id-1"
        return request

    def begin(
        self, method: bytes = b"GET", length: int | None = 0, path: bytes = b"/api/x"
    ) -> Play:
        """Let a client send the head of a request."""
        client = FakeClient()
        exchange = self.engine.exchange(self.request(method, length, path), client)
        exchange.begin(self.clock())
        return Play(exchange=exchange, client=client)

    def sending(
        self, method: bytes = b"GET", length: int | None = 0
    ) -> tuple[Play, FakeConnection]:
        """Bring a request to the point where its head is on a connection to "a"."""
        play = self.begin(method, length)
        return play, self.pools["a"].connect()

    def relaying(
        self, method: bytes = b"GET", length: int | None = 0
    ) -> tuple[Play, FakeConnection]:
        """Bring a request to the point where the head of the answer is with the client."""
        play, connection = self.sending(method, length)
        connection.head()
        return play, connection

    def send(self, play: Play, chunk: bytes) -> None:
        """Let the client send a piece of its body."""
        play.exchange.client_body(chunk, self.clock())

    def send_end(self, play: Play, trailers: Fields | None = None) -> None:
        """Let the client end its body."""
        play.exchange.client_end(trailers or [], self.clock())

    def pass_time(self, by_s: float) -> None:
        """Let time pass and the coarse clock tick once."""
        self.clock.advance(by_s)
        self.deadlines.look(self.clock())

    def assert_all_is_settled(self) -> None:
        """Check what must hold when no request is open: nothing is left anywhere."""
        members = self.fleet.members.values()
        assert self.deadlines.watched == set()
        assert [member for member in members if member.in_flight] == []
        assert [member for member in members if member.breaker.has_trial_out] == []
        assert [pool for pool in self.pools.values() if pool.waiting] == []
        assert [one for pool in self.pools.values() for one in pool.made if not one.ending] == []

    def _make_pool(self, _service: ServiceConfig, instance: Instance) -> ConnectionPool:
        pool = self.pools[instance.key] = FakePool(self.clock, instance)
        return pool


def instance(key: str, *, status: Status = Status.PASSING, port: int = 80) -> Instance:
    """Make an instance of this name."""
    return Instance(key=key, id=key, host="127.0.0.1", port=port, status=status)
