"""Every way in which a request can fail, by name, in one table.

Answers, log fields, metric labels and the documentation are made from this table. Whoever meets a
failure looks up its row and does what the row says; nobody decides status codes anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Side(Enum):
    """Whose fault it is."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"
    NOBODY = "nobody"


class Again(Enum):
    """Whether the request may go to another instance after this failure.

    IF_ALLOWED: only if the method is idempotent or the route says so, and the body can be replayed
    (RFC 9110 §9.2.2).
    """

    NEVER = "never"
    IF_ALLOWED = "if it may"
    ALWAYS = "always"


class Failure(Enum):
    """One named way to fail."""

    BAD_REQUEST = "bad_request"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    NO_ROUTE = "no_route"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_IMPLEMENTED = "not_implemented"
    DRAINING = "draining"
    OVER_CAPACITY = "over_capacity"
    CATALOG_COLD = "catalog_cold"
    NO_INSTANCES = "no_instances"
    BREAKERS_OPEN = "breakers_open"
    ALL_UNREACHABLE = "all_unreachable"
    DNS_TIMEOUT = "dns_timeout"
    NO_LOCAL_PORT = "no_local_port"
    CONNECT_FAILED = "connect_failed"
    TLS_FAILED = "tls_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    SEND_FAILED = "send_failed"
    SEND_TIMEOUT = "send_timeout"
    UPLOAD_STALLED = "upload_stalled"
    BAD_RESPONSE = "bad_response"
    DISCONNECTED_EARLY = "disconnected_early"
    STALE_CONNECTION = "stale_connection"
    HEAD_TIMEOUT = "head_timeout"
    CONTINUE_TIMEOUT = "continue_timeout"
    REQUEST_DEADLINE = "request_deadline"
    CLIENT_DEADLINE = "client_deadline"
    RETRIABLE_STATUS = "retriable_status"
    TOO_MANY_REQUESTS = "too_many_requests"
    UPSTREAM_BROKE_OFF = "upstream_broke_off"
    TUNNEL_IDLE = "tunnel_idle"
    APP_FAILED = "app_failed"
    CLIENT_GONE = "client_gone"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a failure.

    `status` is what the client gets; None where it gets no answer of ours (its connection is cut,
    or the instance's own answer is passed on). `title` is for the client, `advice` for whoever is
    on call. `counts` says whether the instance's Breaker hears of it as a failure; `has_closed`
    that the instance took a connection and has closed it, or might as well have.
    """

    status: int | None
    side: Side
    again: Again
    title: str
    advice: str
    counts: bool = False
    has_closed: bool = False


_C, _G, _U, _N = Side.CLIENT, Side.GATEWAY, Side.UPSTREAM, Side.NOBODY
_NEVER, _IF, _ALWAYS = Again.NEVER, Again.IF_ALLOWED, Again.ALWAYS

VERDICTS: dict[Failure, Verdict] = {
    Failure.BAD_REQUEST: Verdict(
        400, _C, _NEVER,
        "The request is not valid HTTP, or it is ambiguous",
        "Look at the detail: it names what is wrong. Ambiguous requests are never passed on.",
    ),
    Failure.URI_TOO_LONG: Verdict(
        414, _C, _NEVER,
        "The request line is too long",
        "Raise GATEWAY_MAX_REQUEST_LINE if such targets are legitimate.",
    ),
    Failure.HEADERS_TOO_LARGE: Verdict(
        431, _C, _NEVER,
        "The header fields are too large or too many",
        "Usually cookies. GATEWAY_MAX_HEADER_SIZE and GATEWAY_MAX_HEADER_FIELDS are the limits.",
    ),
    Failure.BODY_TOO_LARGE: Verdict(
        413, _C, _NEVER,
        "The request body is too large",
        "The route's max_body is the limit.",
    ),
    Failure.REQUEST_TIMEOUT: Verdict(
        408, _C, _NEVER,
        "The client sent its request too slowly",
        "A slow or dead client. GATEWAY_CLIENT_HEAD_TIMEOUT, GATEWAY_CLIENT_BODY_TIMEOUT and "
        "timeouts.min_rate are the limits.",
    ),
    Failure.NO_ROUTE: Verdict(
        404, _C, _NEVER,
        "No route matches this request",
        "Compare host and path with `/api/routes` on the admin port.",
    ),
    Failure.METHOD_NOT_ALLOWED: Verdict(
        405, _C, _NEVER,
        "A route matches, but not with this method",
        "The Allow field names the methods that routes.yaml takes here.",
    ),
    Failure.NOT_IMPLEMENTED: Verdict(
        501, _G, _NEVER,
        "The gateway does not do this",
        "The detail names what was asked for and what to use in its place.",
    ),
    Failure.DRAINING: Verdict(
        503, _G, _NEVER,
        "The gateway is shutting down",
        "The load balancer in front should have stopped sending; see GATEWAY_DRAIN_DELAY.",
    ),
    Failure.OVER_CAPACITY: Verdict(
        503, _G, _NEVER,
        "The gateway takes no more requests right now",
        "A limit is reached; the detail names it. Add capacity, or raise it.",
    ),
    Failure.CATALOG_COLD: Verdict(
        503, _G, _NEVER,
        "The registry has not told yet where this service is",
        "The registry never answered since the start; `/health` shows why.",
    ),
    Failure.NO_INSTANCES: Verdict(
        503, _G, _NEVER,
        "The service has no instance that may get traffic",
        "The detail counts what the registry knows: not registered, critical, in maintenance.",
    ),
    Failure.BREAKERS_OPEN: Verdict(
        503, _U, _NEVER,
        "All instances of the service failed lately and are left alone",
        "`/health` shows each Breaker. Retry-After says when the next trial is due.",
    ),
    Failure.ALL_UNREACHABLE: Verdict(
        503, _U, _NEVER,
        "No instance of the service could be reached",
        "Several instances are known, and each refuses the connection or has an open Breaker.",
    ),
    Failure.DNS_TIMEOUT: Verdict(
        504, _N, _ALWAYS,
        "The name of the instance could not be looked up in time",
        "The nameservers of this machine are away or slow; half of timeouts.connect is the limit. "
        "No instance is blamed, and names that were known before are used on.",
    ),
    Failure.NO_LOCAL_PORT: Verdict(
        503, _G, _ALWAYS,
        "The gateway has no port left to connect to the instance from",
        "Widen net.ipv4.ip_local_port_range, or keep connections longer. No instance is blamed.",
    ),
    Failure.CONNECT_FAILED: Verdict(
        502, _U, _ALWAYS,
        "The instance could not be connected to",
        "The process is down, or its address in the registry is wrong: the detail says more.",
        counts=True,
    ),
    Failure.TLS_FAILED: Verdict(
        502, _U, _ALWAYS,
        "No TLS session with the instance",
        "The detail has the reason: an unknown CA, a wrong name, an expired certificate.",
        counts=True,
    ),
    Failure.CONNECT_TIMEOUT: Verdict(
        504, _U, _ALWAYS,
        "The instance did not take the connection in time",
        "A dead machine, a firewall, or a full accept queue; timeouts.connect is the limit.",
        counts=True,
    ),
    Failure.SEND_FAILED: Verdict(
        502, _U, _IF,
        "The instance cut the connection while the request was being sent",
        "Often a body limit of the instance that closes without a response. It is not blamed, "
        "because a client can choose a body that it refuses.",
    ),
    Failure.SEND_TIMEOUT: Verdict(
        504, _U, _IF,
        "The instance did not read the request in time",
        "It stopped reading inside the body; GATEWAY_CLIENT_BODY_TIMEOUT is the limit.",
        counts=True,
    ),
    Failure.UPLOAD_STALLED: Verdict(
        502, _N, _NEVER,
        "The instance closed the connection while the client was late with its body",
        "It waits for a body for a shorter time than the client took; it is not blamed, for any "
        "client can be late.",
    ),
    Failure.BAD_RESPONSE: Verdict(
        502, _U, _IF,
        "The instance answered with something that is not valid HTTP",
        "The detail names what is wrong. Is it really an HTTP port?",
        counts=True,
        has_closed=True,
    ),
    Failure.DISCONNECTED_EARLY: Verdict(
        502, _U, _IF,
        "The instance closed the connection before it answered",
        "A crash, or a worker that was ended while it had a request in hand.",
        counts=True,
        has_closed=True,
    ),
    Failure.STALE_CONNECTION: Verdict(
        502, _N, _IF,
        "An idle connection to the instance turned out to be closed",
        "The instance keeps idle connections for a shorter time than assumed; harmless when rare.",
    ),
    Failure.HEAD_TIMEOUT: Verdict(
        504, _U, _IF,
        "The instance did not answer in time",
        "timeouts.response is the limit, counted from the last byte of the request.",
        counts=True,
    ),
    Failure.CONTINUE_TIMEOUT: Verdict(
        504, _N, _NEVER,
        "The client waited for a 100 and the instance for the body",
        "The instance does not know Expect, or it hangs; it is not blamed, for a client may wait "
        "as long as it likes.",
    ),
    Failure.REQUEST_DEADLINE: Verdict(
        504, _U, _NEVER,
        "The request took longer than it may take in all",
        "timeouts.request is the limit, over all attempts. Who had less than half of it (or of "
        "timeouts.response) is not blamed: others took the time.",
        counts=True,
    ),
    Failure.CLIENT_DEADLINE: Verdict(
        504, _N, _NEVER,
        "The time that the client had for this request is over",
        "It came in the route's deadline_header, from a trusted proxy; no instance is blamed.",
    ),
    Failure.RETRIABLE_STATUS: Verdict(
        None, _U, _IF,
        "The instance answered with a status that may be tried elsewhere",
        "The answer is passed on as it is when no other instance may be tried.",
        counts=True,
    ),
    Failure.TOO_MANY_REQUESTS: Verdict(
        None, _U, _IF,
        "The instance answered 429, and that may be tried elsewhere",
        "The instance works and takes no more for now: it rests, and is not blamed.",
    ),
    Failure.UPSTREAM_BROKE_OFF: Verdict(
        None, _U, _NEVER,
        "The instance broke off inside the answer",
        "The client's connection was cut so that it can tell; look at the instance.",
        counts=True,
        has_closed=True,
    ),
    Failure.TUNNEL_IDLE: Verdict(
        None, _N, _NEVER,
        "Nothing moved through the tunnel for as long as it may be silent",
        "After an upgrade, timeouts.tunnel is the limit for both directions; WebSocket pings keep "
        "a tunnel alive.",
    ),
    Failure.APP_FAILED: Verdict(
        500, _G, _NEVER,
        "The app or the middleware of this route failed",
        "It runs in the gateway's process: the event `app_failed` in the log has the traceback. "
        "Inside an answer, the client's connection was cut so that it can tell.",
    ),
    Failure.CLIENT_GONE: Verdict(
        None, _C, _NEVER,
        "The client left before its answer was complete",
        "Logged as 499. Many of them mean that answers are too slow for the clients.",
    ),
    Failure.INTERNAL_ERROR: Verdict(
        500, _G, _NEVER,
        "The gateway made a mistake",
        "A bug: the log has the traceback. Please report it.",
    ),
}  # fmt: skip

# After these an instance was not there: it may be back any moment, and who asks learns it at once.
GONE: Final = frozenset(one.value for one in (Failure.CONNECT_FAILED, Failure.DISCONNECTED_EARLY))

# After these nothing can have been sent: the instance took no connection.
UNREACHED: Final = frozenset(
    failure.value for failure, verdict in VERDICTS.items() if verdict.again is Again.ALWAYS
)

# What is said beside these is about the request alone; beside all others it may name instances.
ABOUT_THE_REQUEST: Final = frozenset(
    failure for failure, verdict in VERDICTS.items() if verdict.side is Side.CLIENT
) | {Failure.NOT_IMPLEMENTED}

CLIENT_GONE_STATUS = 499
