"""A gateway as the admin port sees it: a real engine, and facts that a test sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Instance, Snapshot
from gateway.core.policy import BreakerPolicy
from gateway.core.registry import Registry, RegistryHealth
from gateway.core.routing import Route, RouteMatch
from gateway.names import Names
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.engine import Engine
from tests.fakes.clock import FakeClock

BREAKER = BreakerPolicy(consecutive_failures=1, open_for_s=10.0)


def route(id_: str, service: str, **options: Any) -> Route:
    """Make a route for /<id>."""
    return Route(
        **{"id": id_, "match": RouteMatch(path=f"/{id_}".encode()), "service": service, **options}
    )


def instance(name: str, **facts: Any) -> Instance:
    """Make an instance on port 8000 of 127.0.0.1."""
    return Instance(**{"key": name, "id": name, "host": "127.0.0.1", "port": 8000, **facts})


@dataclass(frozen=True)
class FakeEntry:
    """How fresh a service is said to be."""

    confirmed_at_s: float | None
    is_stale: bool


class FakeRegistry:
    """A registry that is as it is told."""

    def __init__(self, health: RegistryHealth) -> None:
        self.name = health.name
        self._health = health

    def health(self) -> RegistryHealth:
        return self._health

    def follow(self, services: Collection[str]) -> None:
        raise AssertionError("the admin port only looks")

    async def run(self) -> None:
        raise AssertionError("the admin port only looks")


class _NoPool:
    def acquire(self, exchange: object, now_s: float) -> None:
        raise AssertionError("nothing is sent")

    def open_for(self, exchange: object) -> None:
        raise AssertionError("nothing is sent")

    def abandon(self, exchange: object) -> None:
        raise AssertionError("nothing is sent")

    def retire(self) -> None:
        pass


class FakeView:
    """What the admin port reads; `publish` does what a registry would.

    It started 100 s ago, and the clock stands.
    """

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.clock = FakeClock(1000.0)
        self.started_at_s = self.configured_at_s = 900.0
        self.is_draining = False
        self.names = Names()
        self.registries: Sequence[Registry] = ()
        self.catalog: dict[str, FakeEntry] = {}
        self.engine = Engine(
            lambda _service, _instance: _NoPool(),
            random=Random(1).random,
            wall_clock=lambda: 0.0,
            observer=_NoObserver(),
            deadlines=Deadlines(),
        )
        listed = tuple(routes)
        services = {one.service: ServiceConfig(name=one.service, breaker=BREAKER) for one in listed}
        self.config = RoutingConfig(routes=listed, services=services, sha256="5a")
        self.engine.use(self.config, client_body_timeout_s=60.0)

    def publish(
        self,
        service: str,
        *instances: Instance,
        source: str = "consul",
        index: int = 7,
        confirmed_at_s: float | None = 1000.0,
    ) -> None:
        """Replace a service's Snapshot; `confirmed_at_s` None makes it stale."""
        self.catalog[service] = FakeEntry(confirmed_at_s, is_stale=confirmed_at_s is None)
        self.engine.follow(
            Snapshot(service=service, instances=instances, source=source, index=index)
        )

    def trip(self, service: str, key: str) -> None:
        """Let an instance fail until its Breaker opens."""
        breaker = self.engine.fleets[service].members[key].breaker
        permit = breaker.admit(self.clock())
        assert permit is not None
        assert breaker.failed(
            permit, self.clock(), why="connect_failed", chance=0.0, was_reached=False
        )


class _NoObserver:
    def settled(self, exchange: object, now_s: float) -> None:
        raise AssertionError("nothing is sent")

    def breaker_changed(self, service: str, member: object, now_s: float) -> None:
        raise AssertionError("nothing is sent")
