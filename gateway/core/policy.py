"""What a route or a service is configured to do: frozen values with their defaults.

These are the only place where the defaults of routing policies live; routes.yaml overrides them,
and the reference in the documentation is generated from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Literal

from gateway.core.units import format_duration

Judgement = Literal["reject", "keep"]


class PriorityClass(IntEnum):
    """How much a route matters when there is not room for all; the smaller number goes first."""

    CRITICAL = 0
    NORMAL = 1
    SHEDDABLE = 2


class WhenAllOpen(Enum):
    """What happens to requests while every Breaker of a service is open."""

    PROBE = "probe"
    ROUTE_ANYWAY = "route_anyway"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each part of an exchange may take; None means no limit.

    `connect_s`: until the connection to the instance stands. `response_s`: from the request's last
    byte until the head of the answer. `idle_s`: between two bytes of a body, either way.
    `tunnel_s`: between two bytes after a switch of protocols, either way.
    `request_s`: the whole exchange with all its attempts. `min_rate_bytes`: what a client has
    to send of its body, and to take of its answer, in each minute.
    """

    connect_s: float | None = 2.0
    response_s: float | None = 15.0
    idle_s: float | None = 300.0
    tunnel_s: float | None = 3600.0
    request_s: float | None = None
    min_rate_bytes: int | None = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """When a second instance is asked though the first has not failed: one of both is set.

    `quantile` is of the service's own latencies, above 0 and below 1; `after_s` is a fixed time.
    """

    quantile: float | None = None
    after_s: float | None = None

    def __str__(self) -> str:
        if self.quantile is not None:
            return f"p{self.quantile * 100:g}"
        return format_duration(self.after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How failover works: `attempts` counts all tries together, so 1 means no failover.

    `on` names the conditions (see `gateway.core.failover`) after which the next instance gets the
    request. `statuses` are answers of an instance that count as failures and may go to the next
    one. `methods` are those that may be sent again after something was sent (RFC 9110 §9.2.2), and
    with `idempotency_key` any method whose request carries that field; QUERY is safe and
    idempotent (RFC 10008).

    `backoff_s` is the longest wait before the second failover, doubled for each one after it, up to
    `max_backoff_s`. `budget` is how many may be sent again as a share of a service's good answers,
    and `budget_min` how many a second are allowed besides. `per_try_s` bounds one attempt until the
    head of its answer. `max_retry_after_s` is for how long an instance is believed that asks to be
    left alone; None does not listen. `repeat` begins another round when all instances were tried.

    `buffer_bytes` is how much of a request body is kept for sending it again; a longer body streams
    and can then not be replayed. `hedge` None means that nobody is asked before somebody failed.
    """

    attempts: int = 3
    on: frozenset[str] = frozenset({"connect", "disconnect", "bad_response", "timeout", "status"})
    statuses: frozenset[int] = frozenset({502, 503, 504})
    methods: frozenset[bytes] = frozenset(
        {b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE", b"QUERY"}
    )
    idempotency_key: bool = False
    repeat: bool = False
    backoff_s: float = 0.025
    max_backoff_s: float = 0.25
    max_retry_after_s: float | None = 10.0
    budget: float = 0.2
    budget_min: float = 3.0
    per_try_s: float | None = None
    hedge: Hedge | None = None
    buffer_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When an instance is left alone, and for how long.

    It opens after `consecutive_failures` in a row, or when at least `min_requests` ended within
    `window_s` and the share `failure_ratio` of them failed, or the share `slow_ratio` of them took
    longer than `slow_after_s` until the head of the answer (None: slowness is no reason). It stays
    open for `open_for_s`, doubled each time it opens again without having closed in between, never
    longer than `max_open_for_s`.

    `max_open_ratio` is the share of a service's instances that may be shut out while others can
    serve. `when_all_open` is what happens when none is left.
    """

    consecutive_failures: int = 5
    failure_ratio: float = 0.5
    min_requests: int = 20
    window_s: float = 10.0
    slow_after_s: float | None = None
    slow_ratio: float = 0.5
    open_for_s: float = 10.0
    max_open_for_s: float = 300.0
    max_open_ratio: float = 0.5
    when_all_open: WhenAllOpen = WhenAllOpen.PROBE


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyPolicy:
    """How many requests may be in hand at once, and who may wait for a place.

    `limit` None means any number. With `is_adaptive` the limit follows the latency, and `limit` is
    the most that it may become. `queue` requests may wait, each for `queue_wait_s`.
    """

    limit: int | None = None
    is_adaptive: bool = False
    queue: int = 32
    queue_wait_s: float = 0.25

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit at all."""
        return self.is_adaptive or self.limit is not None


@dataclass(frozen=True, slots=True)
class StatusRange:
    """Statuses of HTTP from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.last > self.first else str(self.first)

    def __contains__(self, status: int) -> bool:
        return self.first <= status <= self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckPolicy:
    """How the gateway itself checks the instances of a service.

    `http` asks for `path` and wants one of the statuses `expect`; `tcp` only connects. A check that
    has no result after `timeout_s` has failed. An instance is refused after `unhealthy_after`
    failures in a row, and let in again after `healthy_after` successes in a row. `host` None sends
    the instance's own address; `headers` may be secret.
    """

    type: Literal["http", "tcp"] = "http"
    path: str | None = None
    interval_s: float = 5.0
    timeout_s: float = 2.0
    healthy_after: int = 2
    unhealthy_after: int = 3
    expect: tuple[StatusRange, ...] = (StatusRange(200, 399),)
    host: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPolicy:
    """How instances over TLS are checked, and what they learn of us; files are paths of PEM files.

    `ca_file` None means the authorities of the system. `server_name` is the name that certificates
    must be for; None means each instance's own host. `client_cert` and `client_key` go together.
    `skip_verify` takes any certificate, so that anybody in between can read and change everything.
    """

    ca_file: str | None = None
    server_name: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    skip_verify: bool = False


BalanceName = Literal["p2c", "round_robin", "random", "least_requests", "ewma", "hash"]
HashPart = Literal["client_ip", "path", "header", "cookie", "query"]
SameSite = Literal["lax", "strict", "none"]


@dataclass(frozen=True, slots=True)
class HashOn:
    """What of a request is hashed; `name` is that of the header, cookie or parameter."""

    part: HashPart
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StickyPolicy:
    """How a client is kept with the instance that served it first; `cookie` None is not at all.

    `ttl_s` is how long the client keeps the cookie, None until it is closed. `secret` makes the
    value of the cookie one that nobody else can compute; gateways of one service share it.
    """

    cookie: str | None = None
    ttl_s: float | None = None
    path: str = "/"
    same_site: SameSite = "lax"
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancingPolicy:
    """Which instance of a service gets a request.

    `hash_on` is for `hash` and None for all others. `slow_start_s` is for how long an instance that
    is new, or back, gets less than its share; None for none of that. `panic` lets those have
    traffic that the registry calls critical, when nobody else can; never those in maintenance.
    """

    balance: BalanceName = "p2c"
    hash_on: HashOn | None = None
    sticky: StickyPolicy = field(default_factory=StickyPolicy)
    slow_start_s: float | None = None
    panic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPolicy:
    r"""What a request path may hold that instances read in different ways.

    `merge_slashes` makes one slash of several, which breaks paths with a URL in them. The others
    say what becomes of a path with `%2F`, with `%5C`, with a plain `\`, with `;`, and with
    characters of ASCII in a longer form of UTF-8 than theirs (RFC 3629 §3). The defaults keep
    what URLs of today have a use for, and reject the rest. A dot segment in disguise and `%00`
    are rejected whatever stands here.
    """

    merge_slashes: bool = False
    encoded_slash: Judgement = "keep"
    encoded_backslash: Judgement = "reject"
    backslash: Judgement = "reject"
    semicolon: Judgement = "keep"
    overlong_utf8: Judgement = "reject"
