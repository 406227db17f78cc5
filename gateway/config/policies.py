"""The policies of routes.yaml: how long, how often, when to leave alone, and how to verify.

The one rule: a key has no default here. Unset means that the next wider place decides, and in the
end `gateway.core.policy`, where the defaults live.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gateway.config.entry import Policy
from gateway.config.kinds import (
    DISTINCT,
    Duration,
    FileName,
    HedgeAfter,
    Method,
    Rate,
    ServerName,
    Size,
    Timeout,
    WhatIfAllOpen,
)
from gateway.core.policy import BreakerPolicy, PathPolicy, RetryPolicy, Timeouts, TlsPolicy
from gateway.core.units import Kind

_LISTED = Field(strict=False)  # YAML has lists, frozen values have tuples
_Judgement = Annotated[Literal["reject", "keep"] | None, Kind("`reject` or `keep`")]
_RetriableStatus = Annotated[int, Field(ge=400, le=599)]
_Condition = Literal["connect", "disconnect", "bad_response", "timeout", "status"]


class TimeoutsEntry(Policy):
    """How long each part of an exchange may take."""

    CORE: ClassVar[Any] = Timeouts

    connect: Timeout = Field(
        default=None, description="Until the connection to the instance stands."
    )
    response: Timeout = Field(
        default=None,
        description="From the last byte of the request until the head of the answer; a 102 "
        "begins it anew.",
    )
    idle: Timeout = Field(
        default=None, description="Between two bytes of a body, in either direction."
    )
    tunnel: Timeout = Field(
        default=None,
        description="Between two bytes, in either direction, once the protocol has switched "
        "(WebSocket); `off` lets a silent tunnel stay.",
    )
    request: Timeout = Field(default=None, description="The whole exchange, with all its attempts.")
    min_rate: Rate = Field(
        default=None,
        description="What a client has to send of its body in each minute, until the answer "
        "begins, or gets 408; and what it has to take of the answer, or is cut off.",
    )


class RetryEntry(Policy):
    """When the next instance gets the request."""

    CORE: ClassVar[Any] = RetryPolicy

    attempts: int | None = Field(
        default=None,
        ge=1,
        description="All tries together; 1 means that no other instance is tried.",
    )
    on: Annotated[tuple[_Condition, ...] | None, _LISTED, DISTINCT, Kind("list of conditions")] = (
        Field(
            default=None,
            description="After what the next instance is tried: `connect` (nothing was sent), "
            "`disconnect`, `bad_response`, `timeout` (no head in time) and `status` (one of "
            "`statuses`). Take `timeout` out where answers are slow by nature.",
        )
    )
    statuses: Annotated[
        tuple[_RetriableStatus, ...] | None, _LISTED, Kind("list of statuses, 400 to 599")
    ] = Field(
        default=None,
        description="Answers of an instance that count as failures, and may go to the next one; "
        "429 goes there without being a failure, and lets the instance rest.",
    )
    methods: Annotated[tuple[Method, ...] | None, _LISTED, Kind("list of methods")] = Field(
        default=None,
        description="Methods that may be sent again after something was sent (RFC 9110 §9.2.2).",
    )
    idempotency_key: bool | None = Field(
        default=None,
        description="Whether a request with `Idempotency-Key` may be sent again whatever its "
        "method; only for services that know the field and keep to it.",
    )
    repeat: bool | None = Field(
        default=None,
        description="Whether another round begins when all instances were tried and attempts are "
        "left; for services whose instances fail by chance.",
    )
    backoff: Duration | None = Field(
        default=None,
        description="The longest wait before the second failover, doubled for each later one; the "
        "wait is drawn from it. The first failover never waits.",
    )
    max_backoff: Duration | None = Field(default=None, description="No wait is longer than this.")
    max_retry_after: Timeout = Field(
        default=None,
        description="An instance that answers one of `statuses` with `Retry-After` is left alone "
        "for so long at most, while others can serve; `off` does not listen to it.",
    )
    budget: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="So many may be sent again, as a share of the service's good answers of the "
        "last 10 s. Raise it only where all instances fail by chance.",
    )
    budget_min: float | None = Field(
        default=None,
        ge=0,
        description="So many a second may be sent again besides, however few requests there are; "
        "those of ten seconds, until something goes well again.",
    )
    per_try: Timeout = Field(
        default=None,
        description="One attempt: to connect, and again from the whole request until the head of "
        "its answer; shorter than `timeouts.response` where another instance is likely to be "
        "faster.",
    )
    hedge: HedgeAfter = Field(
        default=None,
        description="Ask a second instance too when the first has not answered for so long: `p95` "
        "of the service's own latencies, or a duration. The first answer is taken. Only for what "
        "may be sent twice and has no body; it counts against the budget.",
    )
    buffer: Size | None = Field(
        default=None,
        description="How much of a request body is kept for another try; a longer body is sent "
        "once only.",
    )

    def overrides(self) -> dict[str, Any]:
        """List what is set here; lists are sets to the core."""
        return {
            name: frozenset(value) if isinstance(value, tuple) else value
            for name, value in super().overrides().items()
        }


class BreakerEntry(Policy):
    """When an instance is left alone, and for how long."""

    CORE: ClassVar[Any] = BreakerPolicy

    consecutive_failures: int | None = Field(
        default=None, ge=1, description="It opens after so many failures in a row."
    )
    failure_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="It opens too when this share of the requests within `window` failed.",
    )
    min_requests: int | None = Field(
        default=None,
        ge=1,
        description="So many must have ended within `window` for the share to count.",
    )
    window: Duration | None = Field(default=None, description="How far back the share looks.")
    slow_after: Timeout = Field(
        default=None,
        description="Answers whose head takes longer than this are slow; off, slowness is no "
        "reason to open.",
    )
    slow_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="It opens too when this share of the requests within `window` was slow.",
    )
    open_for: Duration | None = Field(
        default=None,
        description="How long it stays open; doubled each time it opens again without having "
        "closed in between.",
    )
    max_open_for: Duration | None = Field(default=None, description="Never longer than this.")
    max_open_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="The share of a service's instances that may be shut out while others can "
        "serve; 1 where any number may be missed.",
    )
    when_all_open: WhatIfAllOpen = Field(
        default=None,
        description="`probe`: one request a second is let through as a trial and the rest is "
        "refused at once. `route_anyway`: as if there were no Breakers, for services that are "
        "better asked in vain than not at all.",
    )


class TlsEntry(Policy):
    """How instances over TLS are checked, and what they learn of us."""

    CORE: ClassVar[Any] = TlsPolicy

    ca_file: FileName | None = Field(
        default=None,
        description="Who signs the certificates of instances; left out, the authorities of the "
        "system.",
    )
    server_name: ServerName | None = Field(
        default=None,
        description="The name that their certificates must be for; left out, each one's own host.",
    )
    client_cert: FileName | None = Field(
        default=None, description="Our certificate, where they ask for one."
    )
    client_key: FileName | None = Field(default=None, description="The key that belongs to it.")
    skip_verify: bool | None = Field(
        default=None,
        description="Take any certificate, for trials: whoever stands in between can read and "
        "change everything.",
    )


class PathsEntry(Policy):
    """What request paths may hold that instances read in different ways."""

    CORE: ClassVar[Any] = PathPolicy

    merge_slashes: bool | None = Field(
        default=None,
        description="Whether several slashes in a row become one; with `false` they stay as they "
        "are, so that a URL may stand in a path (`/fetch/https://example.com`).",
    )
    encoded_slash: _Judgement = Field(default=None, description="`%2F`: a slash within a segment.")
    encoded_backslash: _Judgement = Field(
        default=None, description="`%5C`, a slash to some instances."
    )
    backslash: _Judgement = Field(
        default=None, description="A plain `\\`, which may not stand in a URL (RFC 3986 §3.3)."
    )
    semicolon: _Judgement = Field(
        default=None,
        description="`;` and `%3B`; some instances cut off what follows as parameters.",
    )
    overlong_utf8: _Judgement = Field(
        default=None, description="Characters in a longer form of UTF-8 than theirs (RFC 3629 §3)."
    )
