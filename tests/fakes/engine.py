"""The sides of an Exchange as played by a test: its client, its pools, its connections, its clock.

The rule: nothing happens of its own accord. A test says what each side does, and what the Exchange
says to a side is recorded there. What no Exchange may ever do (speak after the end, write to a
connection that it let go) fails at once, in whichever test it happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.core.breaker import BreakerState
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.failure import Failure
from gateway.core.fleet import Fleet, Member
from gateway.core.message import AnswerHead, Fields, Peer, Request
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import BreakerPolicy, RetryPolicy, Timeouts
from gateway.core.routing import Route, RouteMatch
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import ConnectionPool
from tests.fakes.clock import FakeClock

SERVICE = "user-service"
WALL_CLOCK_S = 784111777.0  # RFC 9110 §5.6.7: Sun, 06 Nov 1994 08:49:37 GMT
DATE = (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT")


class FakeClient:
    """The client's side: `said` is what it was told, one word or pair for each message."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.head: AnswerHead | None = None
        self.body = bytearray()
        self.trailers: Fields = []
        self.interims: list[tuple[int, Fields]] = []
        self.is_paused = False
        self.flushes = 0

    def __repr__(self) -> str:
        return f"<FakeClient {' '.join(self.said)}>"

    @property
    def is_over(self) -> bool:
        """Whether the Exchange has said its last word."""
        return self.said[-1:] in (["end"], ["abort"])

    @property
    def reason(self) -> bytes | None:
        """The reason of an answer of the gateway's own, None if it is an instance's."""
        assert self.head is not None
        return dict(self.head.fields).get(b"X-Gateway-Reason")

    def send_interim(self, status: int, fields: Fields) -> None:
        assert self.head is None, "an interim answer after the final one"
        self._say(f"interim {status}")
        self.interims.append((status, fields))

    def send_head(self, head: AnswerHead) -> None:
        assert self.head is None, "a second head"
        self._say(f"head {head.status}")
        self.head = head

    def send_body(self, chunk: bytes) -> None:
        assert self.head is not None, "a body without a head"
        assert chunk, "an empty piece"
        self._say("body")
        self.body += chunk

    def send_end(self, trailers: Fields) -> None:
        assert self.head is not None, "an end without a head"
        self._say("end")
        self.trailers = trailers

    def abort(self) -> None:
        self._say("abort")

    def flush(self) -> None:
        self.flushes += 1

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def _say(self, word: str) -> None:
        assert not self.is_over, f"{word!r} after {self.said[-1]!r}"
        self.said.append(word)


class FakeConnection:
    """A connection to an instance: `sent` is what the Exchange wrote, the methods play answers.

    `ending` is None while it carries the Exchange, then "reusable", "closed" or "lost".
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.exchange: Exchange | None = None
        self.sent = bytearray()
        self.to_head = False
        self.is_paused = False
        self.ending: str | None = None
        self.has_taken = True

    def __repr__(self) -> str:
        return f"<FakeConnection {self.ending or 'open'} {bytes(self.sent[:40])!r}>"

    # --- The Exchange tells ----------------------------------------------------------------------

    def begin(self, exchange: Exchange, request: bytes, *, to_head: bool) -> None:
        assert self.exchange is None, "a connection carries one Exchange"
        self.exchange = exchange
        self.to_head = to_head
        self.write(request)

    def write(self, chunk: bytes) -> None:
        assert self.ending is None, "a write on a connection that was let go"
        self.sent += chunk
        if not self.has_taken:
            self.pauses()

    def pause_reading(self) -> None:
        assert self.ending is None
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.ending is None
        self.is_paused = False

    def finish(self, *, is_reusable: bool) -> None:
        self._end("reusable" if is_reusable else "closed")

    def abort(self) -> None:
        self._end("closed")

    # --- The test plays --------------------------------------------------------------------------

    def pauses(self) -> None:
        """Take no more of the request."""
        self._carried().upstream_paused()

    def resumes(self) -> None:
        """Take more of the request again."""
        self.has_taken = True
        self._carried().upstream_resumed(self._stage.clock())

    def interim(self, status: int = 103) -> None:
        """Answer provisionally."""
        self._carried().upstream_interim(status, [(b"Link", b"</a.css>")])

    def head(self, status: int = 200) -> AnswerHead:
        """Answer with a head; a body may follow."""
        head = AnswerHead(status, b"", [(b"X-From", b"instance")])
        self._carried().upstream_head(head, self._stage.clock())
        return head

    def body(self, chunk: bytes = b"body") -> None:
        """Send a piece of the answer's body."""
        self._carried().upstream_body(chunk, self._stage.clock())

    def end(self, trailers: Fields | None = None) -> None:
        """End the answer."""
        self._carried().upstream_end(trailers or [], self._stage.clock())

    def answer(self, status: int = 200, body: bytes = b"body") -> None:
        """Answer in full."""
        self.head(status)
        if self.ending is None:
            self.body(body)
            self.end()

    def fail(self, failure: Failure = Failure.DISCONNECTED_EARLY, detail: str = "gone") -> None:
        """Fail, and be lost."""
        exchange = self._carried()
        self.ending = "lost"
        exchange.upstream_failed(failure, detail, self._stage.clock())

    def _carried(self) -> Exchange:
        assert self.exchange is not None
        assert self.ending is None, "the test plays a connection that was let go"
        return self.exchange

    def _end(self, ending: str) -> None:
        assert self.ending is None, f"{ending} after {self.ending}"
        self.ending = ending


class FakePool:
    """The connections to one instance: `warm` are idle ones, given at once; others wait for a test.

    `made` are all connections that it gave, in order.
    """

    def __init__(self, stage: Stage, instance: Instance) -> None:
        self._stage = stage
        self.instance = instance
        self.warm: list[FakeConnection] = []
        self.made: list[FakeConnection] = []
        self.waiting: list[Exchange] = []
        self.asked_fresh: list[bool] = []
        self.is_retired = False

    def __repr__(self) -> str:
        return f"<FakePool {self.instance.key}, {len(self.waiting)} waiting, {self.made}>"

    def acquire(self, exchange: Exchange, now_s: float, *, is_fresh: bool) -> FakeConnection | None:
        self.asked_fresh.append(is_fresh)
        if self.warm and not is_fresh:
            self.made.append(self.warm.pop())
            return self.made[-1]
        self.waiting.append(exchange)
        return None

    def abandon(self, exchange: Exchange) -> None:
        self.waiting.remove(exchange)

    def retire(self) -> None:
        self.is_retired = True

    # --- The test plays --------------------------------------------------------------------------

    def warm_up(self) -> FakeConnection:
        """Put an idle connection in."""
        self.warm.append(FakeConnection(self._stage))
        return self.warm[-1]

    def connect(self, *, has_taken: bool = True) -> FakeConnection:
        """Let the connection stand that the first Exchange waits for.

        With `has_taken` False it takes no more than what is written first.
        """
        connection = FakeConnection(self._stage)
        connection.has_taken = has_taken
        self.made.append(connection)
        self.waiting.pop(0).upstream_ready(connection, self._stage.clock())
        return connection

    def refuse(self, failure: Failure = Failure.CONNECT_FAILED) -> None:
        """Let the connecting fail that the first Exchange waits for."""
        self.waiting.pop(0).upstream_failed(failure, "refused", self._stage.clock())


class RecordingObserver:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.settled_ones: list[Exchange] = []
        self.breaker_changes: list[str] = []

    def settled(self, exchange: Exchange, now_s: float) -> None:
        assert exchange not in self.settled_ones, "settled twice"
        self.settled_ones.append(exchange)

    def breaker_changed(self, service: str, member: Member[ConnectionPool], now_s: float) -> None:
        state = member.breaker.state(now_s).value
        self.breaker_changes.append(f"{service} {member.instance.key} {state}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One request between its played sides."""

    exchange: Exchange
    client: FakeClient


@dataclass(slots=True, kw_only=True)
class Policies:
    """What the one route and the one service of a Stage are configured to do."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    client_body_timeout_s: float = 60.0


class Stage:
    """An Engine with one route, /api, to one service whose instances are "a", "b", "c" …

    Chance always draws 0, so that the least loaded comes first and "a" before "b". `clock` is for
    numbers only. `instances` None means that the registry has told nothing yet.
    """

    def __init__(self, instances: str | None = "abc", **policies: object) -> None:
        self.policies = Policies(**policies)  # type: ignore[arg-type] -- checked by the dataclass
        self.clock = FakeClock()
        self.deadlines = Deadlines()
        self.observer = RecordingObserver()
        self.pools: dict[str, FakePool] = {}
        self.engine = Engine(
            self._make_pool,
            random=lambda: 0.0,
            wall_clock=lambda: WALL_CLOCK_S,
            observer=self.observer,
            deadlines=self.deadlines,
        )
        self.route()
        if instances is not None:
            self.publish(instance(key) for key in instances)

    @property
    def fleet(self) -> Fleet[ConnectionPool]:
        """The live state of the one service."""
        return self.engine.fleets[SERVICE]

    def route(self, *routes: Route) -> None:
        """Configure these routes, by default the one."""
        service = ServiceConfig(name=SERVICE, breaker=self.policies.breaker)
        config = RoutingConfig(routes=routes or (self.api(),), services={SERVICE: service})
        self.engine.use(config, client_body_timeout_s=self.policies.client_body_timeout_s)

    def api(self) -> Route:
        """Make the one route."""
        return Route(
            id="api",
            match=RouteMatch(path=b"/api"),
            service=SERVICE,
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
        for _ in range(self.policies.breaker.consecutive_failures):
            permit = breaker.admit(self.clock())
            assert permit is not None
            breaker.failed(permit, self.clock(), why="test", chance=0.0)

    def request(
        self, method: bytes = b"GET", length: int | None = 0, path: bytes = b"/api/x"
    ) -> Request:
        """Write a request; its body has `length` bytes, None for chunked."""
        fields = [(b"Accept", b"*/*")]
        request = Request(method, path, query=b"?q=1", fields=fields, host=b"example.com")
        request.length = length
        request.declares_length = bool(length)
        request.peer = Peer(b"192.0.2.1", b"http", is_trusted=False)
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
        assert self.deadlines.watched == set()
        assert [0 for _ in self.pools] == [
            member.in_flight for member in self.fleet.members.values()
        ]
        assert [[] for _ in self.pools] == [pool.waiting for pool in self.pools.values()]
        assert not any(c.ending is None for pool in self.pools.values() for c in pool.made)
        assert not any(member.breaker._trial_out for member in self.fleet.members.values())

    def _make_pool(self, instance: Instance) -> FakePool:
        pool = self.pools[instance.key] = FakePool(self, instance)
        return pool


def instance(key: str, *, status: Status = Status.PASSING, port: int = 80) -> Instance:
    """Make an instance of this name."""
    return Instance(key=key, id=key, host="127.0.0.1", port=port, status=status)
