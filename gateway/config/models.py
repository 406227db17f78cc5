"""Which keys routes.yaml has, and what each of them takes.

The one rule: a key of a policy has no default here. Unset means that the next wider place decides,
and in the end `gateway.core.policy`, where the defaults live. The reference in the documentation is
generated from these fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.config.kinds import (
    DISTINCT,
    NOT_EMPTY,
    AddedPrefix,
    Duration,
    FileName,
    HostPattern,
    Method,
    Name,
    RoutePath,
    ServerName,
    Size,
    Timeout,
    UpgradeName,
    Url,
)
from gateway.core.policy import BreakerPolicy, RetryPolicy, Timeouts, TlsPolicy
from gateway.core.units import Kind

_UNITS = ("", "_s", "_bytes")
_LISTED = Field(strict=False)  # YAML has lists, frozen values have tuples
_RetriableStatus = Annotated[int, Field(ge=400, le=599)]


class Entry(BaseModel):
    """What all entries share: unknown keys are errors, values are not converted on the quiet."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Policy(Entry):
    """Keys that override those of a core policy, one by one."""

    CORE: ClassVar[Any]

    def overrides(self) -> dict[str, Any]:
        """List what is set here, by the name of the field in the core's policy."""
        return {self.core_field(key): getattr(self, key) for key in self.model_fields_set}

    @classmethod
    def core_field(cls, key: str) -> str:
        """Name the field of the core's policy that a key sets: the same, or with its unit."""
        names = {field.name for field in dataclasses.fields(cls.CORE)}
        return next(key + unit for unit in _UNITS if key + unit in names)


class TimeoutsEntry(Policy):
    """How long each part of an exchange may take."""

    CORE: ClassVar[Any] = Timeouts

    connect: Timeout = Field(
        default=None, description="Until the connection to the instance stands."
    )
    response: Timeout = Field(
        default=None, description="From the last byte of the request until the head of the answer."
    )
    idle: Timeout = Field(
        default=None, description="Between two bytes of a body, in either direction."
    )
    request: Timeout = Field(default=None, description="The whole exchange, with all its attempts.")


class RetryEntry(Policy):
    """When the next instance gets the request."""

    CORE: ClassVar[Any] = RetryPolicy

    attempts: int | None = Field(
        default=None,
        ge=1,
        description="All tries together; 1 means that no other instance is tried.",
    )
    statuses: Annotated[
        tuple[_RetriableStatus, ...] | None, _LISTED, Kind("list of statuses, 400 to 599")
    ] = Field(default=None, description="Answers of an instance that count as failures.")
    methods: Annotated[tuple[Method, ...] | None, _LISTED, Kind("list of methods")] = Field(
        default=None,
        description="Methods that may be sent again after something was sent (RFC 9110 §9.2.2).",
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
    open_for: Duration | None = Field(
        default=None,
        description="How long it stays open; doubled each time it opens again without having "
        "closed in between.",
    )
    max_open_for: Duration | None = Field(default=None, description="Never longer than this.")


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


def with_url(value: object) -> object:
    """Write a server that is only a URL in full."""
    return {"url": value} if isinstance(value, str) else value


class InstanceEntry(Entry):
    """One configured instance; a bare URL is short for `{url: …}`."""

    url: Url = Field(description="Scheme, host and port; 80 or 443 where it names no port.")
    weight: int = Field(
        default=1, ge=1, le=65_535, description="Its share of the traffic beside the others."
    )


class ServiceEntry(Entry):
    """What differs from the defaults for one service."""

    servers: Annotated[
        tuple[Annotated[InstanceEntry, BeforeValidator(with_url)], ...] | None,
        _LISTED,
        NOT_EMPTY,
        Kind("list of URLs or servers"),
    ] = Field(default=None, description="Its instances; left out, the registry is asked.")
    timeouts: TimeoutsEntry = Field(
        default_factory=TimeoutsEntry, description="How long each part may take: see `timeouts`."
    )
    retry: RetryEntry = Field(
        default_factory=RetryEntry,
        description="When the next instance gets the request: see `retry`.",
    )
    circuit_breaker: BreakerEntry = Field(
        default_factory=BreakerEntry,
        description="When an instance is left alone: see `circuit_breaker`.",
    )
    tls: TlsEntry = Field(
        default_factory=TlsEntry,
        description="How instances over `https` are verified: see `tls`.",
    )


_MAX_BODY = "The longest request body in bytes; a longer one gets 413. Left out: any length."
_UPGRADE = (
    "Protocols that a client may switch to; the connection is then a tunnel of bytes. "
    "`[]` refuses all, `[websocket]` is the default; `h2c` is never taken."
)
Upgrades = Annotated[tuple[UpgradeName, ...] | None, _LISTED, DISTINCT, Kind("list of names")]


class DefaultsEntry(Entry):
    """What holds wherever a service or a route says nothing else."""

    timeouts: TimeoutsEntry = Field(
        default_factory=TimeoutsEntry, description="How long each part may take: see `timeouts`."
    )
    retry: RetryEntry = Field(
        default_factory=RetryEntry,
        description="When the next instance gets the request: see `retry`.",
    )
    circuit_breaker: BreakerEntry = Field(
        default_factory=BreakerEntry,
        description="When an instance is left alone: see `circuit_breaker`.",
    )
    tls: TlsEntry = Field(
        default_factory=TlsEntry,
        description="How instances over `https` are verified: see `tls`.",
    )
    preserve_host: bool | None = Field(
        default=None, description="Whether the instance gets the Host that the client sent."
    )
    max_body: Size | None = Field(default=None, description=_MAX_BODY)
    upgrade: Upgrades = Field(default=None, description=_UPGRADE)


def _without_last_slash(path: bytes) -> bytes:
    return path.rstrip(b"/") or b"/"


class MatchEntry(Entry):
    """Which requests a route takes; the most specific route wins, not the first one."""

    path_prefix: Annotated[RoutePath, AfterValidator(_without_last_slash)] | None = Field(
        default=None,
        description="Whole segments: `/api` takes `/api` and `/api/x`, not `/apix`; `/api/` means "
        "the same. One of `path_prefix` and `path` is required.",
    )
    path: RoutePath | None = Field(default=None, description="This path and no other.")
    hosts: Annotated[
        tuple[HostPattern, ...] | None, _LISTED, NOT_EMPTY, DISTINCT, Kind("list of host names")
    ] = Field(
        default=None,
        description="Names without scheme and port; `*.example.com` takes every name below it. "
        "Left out: any.",
    )
    methods: Annotated[
        tuple[Method, ...] | None, _LISTED, NOT_EMPTY, DISTINCT, Kind("list of methods")
    ] = Field(default=None, description="`HEAD` is not part of `GET`: name both. Left out: any.")

    @model_validator(mode="after")
    def _one_kind_of_path(self) -> MatchEntry:
        if self.path_prefix is None and self.path is None:
            raise ValueError("needs path_prefix or path; path_prefix: / takes every path")
        if self.path_prefix is not None and self.path is not None:
            raise ValueError("takes path_prefix or path, not both")
        return self


class RouteEntry(Entry):
    """One entry of `routes`: what it takes, what is done on the way, where it goes."""

    id: Name | None = Field(
        default=None,
        description="Its name in logs, metrics and the admin port; left out, one is made of what "
        "it takes.",
    )
    match: MatchEntry = Field(description="Which requests it takes: see `routes[].match`.")
    service: Name = Field(description="Where it goes: a name under `services` or in the registry.")
    strip_prefix: bool = Field(
        default=False, description="Whether the path that matched is cut off on the way."
    )
    add_prefix: AddedPrefix = Field(
        default=b"", description="Put in front of the path, after anything was cut off."
    )
    preserve_host: bool | None = Field(
        default=None, description="Whether the instance gets the Host that the client sent."
    )
    max_body: Size | None = Field(default=None, description=_MAX_BODY)
    upgrade: Upgrades = Field(default=None, description=_UPGRADE)
    timeouts: TimeoutsEntry = Field(
        default_factory=TimeoutsEntry, description="How long each part may take: see `timeouts`."
    )
    retry: RetryEntry = Field(
        default_factory=RetryEntry,
        description="When the next instance gets the request: see `retry`.",
    )


class RoutesFile(Entry):
    """All of routes.yaml."""

    version: Annotated[Literal[1], Kind("`1`")] = Field(description="The layout of the file.")
    defaults: DefaultsEntry = Field(
        default_factory=DefaultsEntry, description="What holds for all: see `defaults`."
    )
    services: dict[Name, ServiceEntry] = Field(
        default_factory=dict,
        description="By name, what differs for one of them: see `services.NAME`.",
    )
    routes: Annotated[tuple[RouteEntry, ...], _LISTED, Kind("list of routes")] = Field(
        description="What goes where: see `routes[]`."
    )


# Where each kind of entry stands, as the messages and the reference write it.
PLACES: Mapping[str, type[Entry]] = MappingProxyType(
    {
        "": RoutesFile,
        "routes[]": RouteEntry,
        "routes[].match": MatchEntry,
        "services.NAME": ServiceEntry,
        "services.NAME.servers[]": InstanceEntry,
        "defaults": DefaultsEntry,
        "timeouts": TimeoutsEntry,
        "retry": RetryEntry,
        "circuit_breaker": BreakerEntry,
        "tls": TlsEntry,
    }
)
