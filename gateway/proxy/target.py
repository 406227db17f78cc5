"""A Route with everything that can be computed before a request comes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from gateway.core.failure import Failure
from gateway.core.fleet import Fleet
from gateway.core.headers import alike, with_host, without_alike
from gateway.core.identity import USUAL_LINES, identity_lines, prefix_line
from gateway.core.message import Request, fields_of, lines_of
from gateway.core.model import Instance
from gateway.core.routing import Route
from gateway.core.time_left import read_time_left, time_left_line
from gateway.proxy.failing_over import Failover
from gateway.proxy.hedging import Hedging
from gateway.proxy.load import Load, Loads
from gateway.proxy.sides import ConnectionPool
from gateway.proxy.stopwatch import Stopwatch
from gateway.proxy.tunnel import offer_lines, refused_offer
from gateway.proxy.upload import Upload

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

_KEY = b"idempotency-key"
_NO_UPGRADE: frozenset[bytes] = frozenset()
_SERVER_ERRORS = frozenset(range(500, 600))
_USUAL_CLOSING = USUAL_LINES + b"%b\r\n\r\n%b"


class Target:
    """What the routing table gives for a request: the Route, its Fleet, and its numbers.

    Times are seconds, `inf` where there is no limit; `least_bytes` have to pass to or from a
    client in each minute, None for any number. `door`, `hedging` and `stopwatch` are None
    where the route needs none; `tunnel_door` is for requests that ask for another protocol.
    `in_process` is None where instances answer;
    else an Exchange that comes here leaves its request to it.
    """

    __slots__ = (
        "_takes_keys",
        "add_prefix",
        "attempts",
        "budget",
        "buffer_bytes",
        "client_idle_s",
        "connect_s",
        "deadline_header",
        "door",
        "failover",
        "fleet",
        "hedging",
        "idempotent",
        "idle_s",
        "in_process",
        "least_bytes",
        "limits",
        "max_body_bytes",
        "noted_statuses",
        "prefix_line",
        "preserve_host",
        "removed",
        "request_s",
        "response_s",
        "route",
        "statuses",
        "stopwatch",
        "strip",
        "tunnel_door",
        "tunnel_s",
        "upgrade",
    )

    def __init__(
        self,
        route: Route,
        fleet: Fleet[ConnectionPool],
        loads: Loads,
        *,
        client_body_timeout_s: float,
    ) -> None:
        self.route = route
        self.fleet = fleet
        self.in_process: Callable[[Exchange, float], None] | None = None
        load, retry = loads.of(route.service), route.retry
        self.budget = load.budget
        self.failover = Failover(retry, load)
        self.door, self.tunnel_door = loads.door(route), loads.tunnel_door(route)
        self.hedging = None if retry.hedge is None else Hedging(retry.hedge, retry, load)
        self.stopwatch = self._stopwatch(load)
        self.deadline_header, self.removed = route.deadline_header, _removed_by(route)
        self._takes_keys = retry.idempotency_key
        timeouts = route.timeouts
        per_try_s = _limit(retry.per_try_s)
        self.connect_s = min(_limit(timeouts.connect_s), per_try_s)
        self.response_s = min(_limit(timeouts.response_s), per_try_s)
        self.limits = (
            "retry.per_try" if self.connect_s == per_try_s else "timeouts.connect",
            "retry.per_try" if self.response_s == per_try_s else "timeouts.response",
        )
        self.idle_s, self.tunnel_s = _limit(timeouts.idle_s), _limit(timeouts.tunnel_s)
        self.request_s = _limit(timeouts.request_s)
        self.client_idle_s = min(self.idle_s, client_body_timeout_s)
        self.least_bytes, self.attempts = timeouts.min_rate_bytes, retry.attempts
        # Nothing is to be done for a status that is not among the second: one look tells.
        self.statuses, self.noted_statuses = retry.statuses, retry.statuses | _SERVER_ERRORS
        self.idempotent = retry.methods
        self.buffer_bytes = retry.buffer_bytes
        self.max_body_bytes = inf if route.max_body_bytes is None else route.max_body_bytes
        # Apps of this process have no tunnels; a WebSocket gets to them by other ways.
        self.upgrade = _NO_UPGRADE if route.app else route.upgrade
        self.add_prefix = route.add_prefix
        self.preserve_host = route.preserve_host
        cut_off = route.match.path.rstrip(b"/") if route.strip_prefix else b""
        self.strip = len(cut_off)
        self.prefix_line = prefix_line(cut_off)

    def _stopwatch(self, load: Load) -> Stopwatch | None:
        """Make what tells latencies, where anybody wants to know."""
        hedge = self.route.retry.hedge
        stopwatch = Stopwatch(
            self.door.gates if self.door is not None else (),
            load.latencies if hedge is not None and hedge.quantile else None,
            slow_after_s=self.fleet.breakers.slow_after_s,
        )
        return stopwatch if stopwatch.is_needed else None

    @property
    def queue_s(self) -> float:
        """For how long a request may have to wait for room at most."""
        return sum(gate.policy.queue_wait_s for gate in self.door.gates) if self.door else 0.0

    def problem(self, request: Request) -> tuple[Failure, str] | None:
        """Say why this route does not take a request: its length, or the protocol it asks for."""
        if request.length is not None and request.length > self.max_body_bytes:
            return Failure.BODY_TOO_LARGE, f"the body is over {self.max_body_bytes} bytes"
        return refused_offer(request, self.upgrade)

    def may_repeat(self, request: Request) -> bool:
        """Tell whether it does no harm if an instance gets the request twice."""
        return request.method in self.idempotent or self.takes_key_of(request)

    def takes_key_of(self, request: Request) -> bool:
        """Tell whether the client says that the request is the same one if it comes again.

        https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
        """
        return self._takes_keys and any(
            name.lower() == _KEY and value for name, value in request.fields
        )

    def time_left_line(self, left_s: float) -> bytes:
        """Write for how long the gateway waits for the head of the answer; nothing if for ever."""
        left_s = min(left_s, self.response_s)
        return b"" if left_s == inf else time_left_line(self.deadline_header, left_s)

    def take_out(self, request: Request) -> float:
        """Remove the fields that do not cross; return until when the client waits, inf if unsaid.

        That is what the deadline header says, from a trusted proxy: a client must not be able to
        send requests that instances give up at once.
        """
        name, left_s = self.deadline_header, None
        if name and request.peer.is_trusted:
            left_s = read_time_left(request.fields, name)
        remove_fields(request, self.removed)
        return inf if left_s is None else request.started_at_s + left_s

    def upload(self, request: Request) -> Upload | None:
        """Make what the request's body passes through.

        None where there is no body, or one that came with its head and goes with it; one that is
        over the buffer does not.
        """
        if request.length == 0 or 0 < len(request.body) <= self.buffer_bytes:
            return None
        upload = Upload(
            request.length, buffer_bytes=self.buffer_bytes, max_bytes=self.max_body_bytes
        )
        upload.is_held_back = request.expects_continue
        if request.body:
            upload.add(request.body)
            request.body = b""
        return upload

    def head(self, request: Request, instance: Instance, closing: bytes) -> bytes:
        """Write the request as the instance gets it; `closing` ends its head, and may go on."""
        path, lines = request.path, request.crossing
        if self.strip:
            path = path[self.strip :] or b"/"
        # An HTTP/1.0 request may come without Host; the instance must not (RFC 9112 §3.2).
        if not self.preserve_host or not request.host:
            lines = with_host(lines, instance.authority.encode("ascii"))
        return b"%b %b%b%b HTTP/1.1%b%b" % (
            request.method,
            self.add_prefix,
            path,
            request.query,
            lines,
            closing,
        )


def closing_lines(request: Request, via: bytes, prefix: bytes = b"") -> bytes:
    """Write the fields that are ours, and end the head; they are the same for every attempt.

    `via` and `prefix` are lines of ours; the latter tells what the route cuts off. Host and
    Content-Length stand among those that cross; a body without a length goes in chunks. A body that
    came with its head goes with it.
    """
    peer = request.peer
    is_usual = request.received is None and request.length is not None
    if is_usual and not (request.upgrade or request.is_http10 or peer.forwarded):
        told = (peer.lines, request.host, request.request_id, prefix, via, request.body)
        return _USUAL_CLOSING % told
    ours = identity_lines(peer, request.host, request.request_id, request.received, prefix)
    if request.is_http10:
        via = via.replace(b" 1.1 ", b" 1.0 ")  # the version that it came with (RFC 9110 §7.6.3)
    if request.length is None:
        via += b"\r\nTransfer-Encoding: chunked"
    elif request.upgrade:
        via += offer_lines(request)
    return b"%b%b\r\n\r\n%b" % (ours, via, request.body)


def remove_fields(request: Request, names: frozenset[bytes]) -> None:
    """Leave out what is `alike` to one of these names, of the fields that cross."""
    request.crossing = lines_of(without_alike(fields_of(request.crossing), names))


def _removed_by(route: Route) -> frozenset[bytes]:
    """List what the route takes out of requests: the deadline header, which it writes, too."""
    header = route.deadline_header
    return route.removed_fields | {alike(header)} if header else route.removed_fields


def _limit(seconds: float | None) -> float:
    return inf if seconds is None else seconds
