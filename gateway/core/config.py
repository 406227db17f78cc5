"""What routes.yaml says, as frozen values: routes, the services they go to, and what is odd.

`gateway.config` makes them and the rest of the gateway reads them. A change of the file makes a new
RoutingConfig, which replaces the old one whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.model import Instance
from gateway.core.policy import (
    BalancingPolicy,
    BreakerPolicy,
    ConcurrencyPolicy,
    HealthCheckPolicy,
    PathPolicy,
    TlsPolicy,
)
from gateway.core.routing import Route


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong or odd in a file; sorts by its place.

    `line` and `column` count from 1; both are 0 where the file as a whole is meant. `key` is the
    place in the document, as in `routes[1].match.hosts[0]`, empty for the document itself.
    """

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """How one service is reached: `instances` None means that the registry knows them.

    Of those, only the ones with all of `tags` are taken; those in the other `datacenters` of the
    registry are for when nobody here can, the first one first. `health_check` None means that only
    the registry and the Breakers say who is well.
    `tls_mark` stands for the content of the files that `tls` names, so that another certificate
    under the same path makes another configuration. `max_per_instance` bounds the requests at once
    with each instance, `max_connections` the connections to each, `max_tunnels` those of its
    clients that have switched to another protocol; None does not.
    """

    name: str
    instances: tuple[Instance, ...] | None = None
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    balancing: BalancingPolicy = field(default_factory=BalancingPolicy)
    limit: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)
    max_per_instance: int | None = None
    max_connections: int | None = None
    max_tunnels: int | None = None
    tls: TlsPolicy = field(default_factory=TlsPolicy)
    tls_mark: str = ""
    tags: frozenset[str] = frozenset()
    datacenters: tuple[str, ...] = ()
    health_check: HealthCheckPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConfig:
    """All of routes.yaml, checked and merged.

    `routes` stand in the order of the file, `services` has exactly those that a route goes to, by
    name. `paths` says which paths are taken at all. `warnings` are what a person should look at
    though the file is valid. `sha256` is that of the file, in hexadecimal, empty if there is none.
    """

    routes: tuple[Route, ...]
    services: Mapping[str, ServiceConfig]
    paths: PathPolicy = field(default_factory=PathPolicy)
    warnings: tuple[Problem, ...] = ()
    sha256: str = ""
