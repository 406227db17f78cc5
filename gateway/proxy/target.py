"""A Route with everything that can be computed before a request comes."""

from __future__ import annotations

from math import inf

from gateway.core.failure import Failure
from gateway.core.fleet import Fleet
from gateway.core.message import Request
from gateway.core.routing import Route
from gateway.proxy.sides import ConnectionPool
from gateway.proxy.tunnel import refused_offer


class Target:
    """What the routing table gives for a request: the Route, its Fleet, and its numbers.

    Times are seconds, `inf` where there is no limit.
    """

    __slots__ = (
        "attempts",
        "buffer_bytes",
        "client_idle_s",
        "connect_s",
        "fleet",
        "idempotent",
        "idle_s",
        "max_body_bytes",
        "request_s",
        "response_s",
        "route",
        "statuses",
        "strip",
        "upgrade",
    )

    def __init__(
        self, route: Route, fleet: Fleet[ConnectionPool], *, client_body_timeout_s: float
    ) -> None:
        self.route = route
        self.fleet = fleet
        timeouts = route.timeouts
        self.connect_s = _limit(timeouts.connect_s)
        self.response_s = _limit(timeouts.response_s)
        self.idle_s = _limit(timeouts.idle_s)
        self.request_s = _limit(timeouts.request_s)
        self.client_idle_s = min(self.idle_s, client_body_timeout_s)
        self.attempts = route.retry.attempts
        self.statuses = route.retry.statuses
        self.idempotent = route.retry.methods
        self.buffer_bytes = route.retry.buffer_bytes
        self.max_body_bytes = inf if route.max_body_bytes is None else route.max_body_bytes
        self.upgrade = route.upgrade
        self.strip = len(route.match.path.rstrip(b"/")) if route.strip_prefix else 0

    def problem(self, request: Request) -> tuple[Failure, str] | None:
        """Say why this route does not take a request: its length, or the protocol it asks for."""
        if request.length is not None and request.length > self.max_body_bytes:
            return Failure.BODY_TOO_LARGE, f"the body is over {self.max_body_bytes} bytes"
        return refused_offer(request, self.upgrade)

    def start_line(self, request: Request, instance_authority: str) -> bytes:
        """Write the request line and Host as the instance gets them."""
        route = self.route
        path = request.path
        if self.strip:
            path = path[self.strip :] or b"/"
        # An HTTP/1.0 request may come without Host; the instance must not (RFC 9112 §3.2).
        keeps_host = route.preserve_host and request.host
        host = request.host if keeps_host else instance_authority.encode("ascii")
        return b"%b %b%b%b HTTP/1.1\r\nHost: %b\r\n" % (
            request.method,
            route.add_prefix,
            path,
            request.query,
            host,
        )


def framing(request: Request) -> bytes:
    """Write how long the body is, and end the head; never both ways (RFC 9112 §6.3)."""
    if request.length is None:
        return b"Transfer-Encoding: chunked\r\n\r\n"
    if request.declares_length:
        return b"Content-Length: %d\r\n\r\n" % request.length
    return b"\r\n"


def _limit(seconds: float | None) -> float:
    return inf if seconds is None else seconds
