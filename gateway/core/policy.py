"""What a route or a service is configured to do: frozen values with their defaults.

These are the only place where the defaults of routing policies live; routes.yaml overrides them,
and the reference in the documentation is generated from them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each part of an exchange may take; None means no limit.

    `connect_s`: until the connection to the instance stands. `response_s`: from the request's last
    byte until the head of the answer. `idle_s`: between two bytes of a body, either way.
    `request_s`: the whole exchange with all its attempts.
    """

    connect_s: float | None = 2.0
    response_s: float | None = 15.0
    idle_s: float | None = 300.0
    request_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How failover works: `attempts` counts all tries together, so 1 means no failover.

    `statuses` are answers of an instance that count as failures and may go to the next one.
    `methods` are those that may be sent again after something was sent (RFC 9110 §9.2.2).
    `buffer_bytes` is how much of a request body is kept for sending it again; a longer body streams
    and can then not be replayed.
    """

    attempts: int = 3
    statuses: frozenset[int] = frozenset({502, 503, 504})
    methods: frozenset[bytes] = frozenset(
        {b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"}
    )
    buffer_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When an instance is left alone, and for how long.

    It opens after `consecutive_failures` in a row, or when at least `min_requests` ended within
    `window_s` and the share `failure_ratio` of them failed. It stays open for `open_for_s`, doubled
    each time it opens again without having closed in between, never longer than `max_open_for_s`.
    """

    consecutive_failures: int = 5
    failure_ratio: float = 0.5
    min_requests: int = 20
    window_s: float = 10.0
    open_for_s: float = 10.0
    max_open_for_s: float = 300.0


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
