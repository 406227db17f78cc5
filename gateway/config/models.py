"""Which keys routes.yaml has, and what each of them takes; policies are in their own module.

The reference in the documentation is generated from these fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.config.balancing import BalancingKeys, StickyEntry
from gateway.config.entry import Entry
from gateway.config.health_check import HealthCheckEntry
from gateway.config.kinds import (
    DISTINCT,
    NOT_EMPTY,
    AddedPrefix,
    Datacenter,
    HostPattern,
    ImportName,
    Method,
    Name,
    PriorityName,
    RoutePath,
    Size,
    Tag,
    UpgradeName,
    Url,
)
from gateway.config.limits import (
    DeadlineHeader,
    MaxConcurrency,
    MaxConnections,
    MaxPerInstance,
    MaxQueue,
    MaxQueueWait,
    MaxTunnels,
    RemovedFields,
)
from gateway.config.policies import BreakerEntry, PathsEntry, RetryEntry, TimeoutsEntry, TlsEntry
from gateway.core.units import Kind

_LISTED = Field(strict=False)  # YAML has lists, frozen values have tuples


def with_url(value: object) -> object:
    """Write a server that is only a URL in full."""
    return {"url": value} if isinstance(value, str) else value


class InstanceEntry(Entry):
    """One configured instance; a bare URL is short for `{url: …}`."""

    url: Url = Field(description="Scheme, host and port; 80 or 443 where it names no port.")
    weight: int = Field(
        default=1, ge=1, le=65_535, description="Its share of the traffic beside the others."
    )
    zone: Name | None = Field(
        default=None, description="Where it is; the zone of the gateway comes first."
    )


class ServiceEntry(BalancingKeys):
    """What differs from the defaults for one service."""

    servers: Annotated[
        tuple[Annotated[InstanceEntry, BeforeValidator(with_url)], ...] | None,
        _LISTED,
        NOT_EMPTY,
        Kind("list of URLs or servers"),
    ] = Field(default=None, description="Its instances; left out, the registry is asked.")
    tags: Annotated[tuple[Tag, ...] | None, _LISTED, NOT_EMPTY, DISTINCT, Kind("list of tags")] = (
        Field(
            default=None,
            description="Only instances that the registry lists with all of these tags.",
        )
    )
    datacenters: Annotated[
        tuple[Datacenter, ...] | None, _LISTED, NOT_EMPTY, DISTINCT, Kind("list of names")
    ] = Field(
        default=None,
        description="Other datacenters of Consul whose instances serve while none here can, the "
        "first one first; see [discovery.md](discovery.md#other-datacenters).",
    )
    health_check: HealthCheckEntry | None = Field(
        default=None,
        description="How the gateway checks its instances, beside the registry: see "
        "`health_check`. Left out: not at all.",
    )
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
    max_concurrency: MaxConcurrency = None
    max_queue: MaxQueue = None
    max_queue_wait: MaxQueueWait = None
    max_concurrency_per_instance: MaxPerInstance = None
    max_connections: MaxConnections = None
    max_tunnels: MaxTunnels = None


_MAX_BODY = "The longest request body in bytes; a longer one gets 413. Left out: any length."
_UPGRADE = (
    "Protocols that a client may switch to; the connection is then a tunnel of bytes. "
    "`[]` refuses all, `[websocket]` is the default, for an app `[]`; `h2c` is never taken."
)
Upgrades = Annotated[tuple[UpgradeName, ...] | None, _LISTED, DISTINCT, Kind("list of names")]


class DefaultsEntry(BalancingKeys):
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
    max_concurrency: MaxConcurrency = None
    max_queue: MaxQueue = None
    max_queue_wait: MaxQueueWait = None
    max_concurrency_per_instance: MaxPerInstance = None
    max_connections: MaxConnections = None
    max_tunnels: MaxTunnels = None
    deadline_header: DeadlineHeader = None
    remove_request_fields: RemovedFields = None


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


def with_use(value: object) -> object:
    """Write a middleware that is only a name in full."""
    return {"use": value} if isinstance(value, str) else value


class MiddlewareEntry(Entry):
    """One ASGI middleware of a route; a bare name is short for `{use: …}`."""

    use: ImportName = Field(description="Its class, or a function that makes it of an app.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What it is made with, beside the app inside."
    )


# What only concerns the way to an instance.
_ONLY_TO_A_SERVICE = (
    "add_prefix",
    "preserve_host",
    "max_concurrency",
    "max_queue",
    "max_queue_wait",
    "max_tunnels",
    "priority_class",
    "deadline_header",
    "retry",
)


class RouteEntry(Entry):
    """One entry of `routes`: what it takes, what is done on the way, where it goes."""

    id: Name | None = Field(
        default=None,
        description="Its name in logs and on the admin port; left out, one is made of what "
        "it takes.",
    )
    match: MatchEntry = Field(description="Which requests it takes: see `routes[].match`.")
    service: Name | None = Field(
        default=None,
        description="Where it goes: a name under `services` or in the registry. One of `service` "
        "and `app` is required.",
    )
    app: ImportName | None = Field(
        default=None, description="Or where it ends: an ASGI app in this process."
    )
    middleware: Annotated[
        tuple[Annotated[MiddlewareEntry, BeforeValidator(with_use)], ...],
        _LISTED,
        Kind("list of names or middleware"),
    ] = Field(
        default=(),
        description="ASGI middleware around it, the outermost first: see `routes[].middleware[]`.",
    )
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
    max_concurrency: MaxConcurrency = None
    max_queue: MaxQueue = None
    max_queue_wait: MaxQueueWait = None
    max_tunnels: MaxTunnels = None
    priority_class: PriorityName = Field(
        default=None,
        description="Who goes first when there is not room for all: `critical`, `normal` (which it "
        "is unless said) or `sheddable`, which never waits and is refused first.",
    )
    deadline_header: DeadlineHeader = None
    remove_request_fields: RemovedFields = None
    timeouts: TimeoutsEntry = Field(
        default_factory=TimeoutsEntry, description="How long each part may take: see `timeouts`."
    )
    retry: RetryEntry = Field(
        default_factory=RetryEntry,
        description="When the next instance gets the request: see `retry`.",
    )

    @model_validator(mode="after")
    def _one_place_to_go(self) -> RouteEntry:
        if self.service is None and self.app is None:
            raise ValueError("needs service, or app for an ASGI app in this process")
        if self.service is not None and self.app is not None:
            raise ValueError("takes service or app, not both")
        if self.app is not None:
            odd = [key for key in _ONLY_TO_A_SERVICE if key in self.model_fields_set]
            if odd:
                raise ValueError(
                    f"{odd[0]} is for routes to a service, and this one ends in an app"
                )
        if self.app and set(self.upgrade or ()) - {b"websocket"}:
            raise ValueError("upgrade: apps know WebSocket alone; write [websocket]")
        if self.service and self.middleware and self.upgrade:
            raise ValueError("upgrade: nothing but HTTP passes through middleware; leave it out")
        return self


class RoutesFile(Entry):
    """All of routes.yaml."""

    version: Annotated[Literal[1], Kind("`1`")] = Field(description="The layout of the file.")
    defaults: DefaultsEntry = Field(
        default_factory=DefaultsEntry, description="What holds for all: see `defaults`."
    )
    paths: PathsEntry = Field(
        default_factory=PathsEntry, description="Which paths are taken at all: see `paths`."
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
        "routes[].middleware[]": MiddlewareEntry,
        "services.NAME": ServiceEntry,
        "services.NAME.servers[]": InstanceEntry,
        "defaults": DefaultsEntry,
        "paths": PathsEntry,
        "timeouts": TimeoutsEntry,
        "retry": RetryEntry,
        "circuit_breaker": BreakerEntry,
        "tls": TlsEntry,
        "health_check": HealthCheckEntry,
        "sticky": StickyEntry,
    }
)
