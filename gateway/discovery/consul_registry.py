"""Consul as a Registry: one watcher for each followed service, joined by one link.

The one rule: only what a route uses is followed, never the whole catalog, and following is cheap to
change: what stays followed is not disturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import structlog

from gateway.core.registry import RegistryHealth
from gateway.core.selection import split_part
from gateway.discovery.catalog import Catalog
from gateway.discovery.consul import Consul
from gateway.discovery.consul_options import ConsulOptions, is_datacenter, is_service_name
from gateway.discovery.link import Link, LinkPolicy
from gateway.discovery.watcher import (
    WatchBudget,
    Watcher,
    WatcherContext,
    WatcherPolicy,
    WatcherStatus,
)

_log = structlog.get_logger()

NAME = "consul"
_TOKEN_LOOKS_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulPolicies:
    """How patient the whole is; the defaults are meant for production.

    `wait_s` and `poll_s` of the watcher are taken from ConsulOptions, where they are configured.
    """

    watcher: WatcherPolicy = field(default_factory=WatcherPolicy)
    link: LinkPolicy = field(default_factory=LinkPolicy)


@dataclass(slots=True)
class _Followed:
    watcher: Watcher
    task: asyncio.Task[None]


class ConsulRegistry:
    """Follows services in Consul and writes them to the catalog.

    `clock` is monotonic, `random` gives numbers in [0, 1). Raises OSError and ValueError at
    construction when the options cannot be used (see `gateway.discovery.consul.Consul`).
    """

    def __init__(
        self,
        options: ConsulOptions,
        *,
        catalog: Catalog,
        clock: Callable[[], float],
        random: Callable[[], float],
        policies: ConsulPolicies | None = None,
    ) -> None:
        policies = policies or ConsulPolicies()
        self._catalog = catalog
        self._consul = Consul(options)
        self._address = options.address
        self._link = Link(
            self._consul.probe,
            address=options.address,
            clock=clock,
            random=random,
            on_lost=self._doubt_all,
            policy=policies.link,
        )
        self._context = WatcherContext(
            registry=NAME,
            catalog=catalog,
            link=self._link,
            poll=self._consul.poll,
            open_watch=self._consul.open_watch,
            budget=WatchBudget(options.max_watches),
            clock=clock,
            random=random,
            policy=replace(policies.watcher, wait_s=options.wait_s, poll_s=options.poll_s),
        )
        self._wanted: frozenset[str] = frozenset()
        self._has_changed = asyncio.Event()
        self._followed: dict[str, _Followed] = {}

    def __repr__(self) -> str:
        return f"<ConsulRegistry services={len(self._wanted)} {self._link!r}>"

    @property
    def name(self) -> str:
        """The name by which routes.yaml and `/health` know it."""
        return NAME

    def health(self) -> RegistryHealth:
        """Tell how Consul is now, and what it denies us."""
        health = self._link.health()
        denial = self._denial()
        if denial is None or not health.reachable:
            return health
        has_seen = any(one.watcher.has_seen for one in self._followed.values())
        return replace(health, detail=denial, is_blind=not has_seen)

    def _denial(self) -> str | None:
        """Say what Consul denies us, by the first service that it holds for; None for nothing."""
        denials = {service: one.watcher.denial for service, one in self._followed.items()}
        denied = sorted(service for service, denial in denials.items() if denial is not None)
        if not denied:
            return None
        whose = f"all of {len(denials)}" if len(denied) == len(denials) else str(len(denied))
        return f"{whose} services ({denied[0]} …): {denials[denied[0]]}"

    def _denied_for(self) -> frozenset[str]:
        """Give the reasons for which Consul denies us anything."""
        denials = (one.watcher.denial for one in self._followed.values())
        return frozenset(denial for denial in denials if denial is not None)

    async def _follow_token(self) -> None:
        """Ask again at once with a token that has changed, and log what Consul denies us."""
        told: frozenset[str] = frozenset()
        while True:
            if self._consul.has_new_token():
                _log.info("token_changed", registry=NAME)
                for one in self._followed.values():
                    one.watcher.ask_again()
            reasons = self._denied_for()
            log = _log.bind(registry=NAME, address=self._address)
            if told and not reasons:
                log.info("registry_allowed")
            elif not reasons <= told:  # another reason: most likely it is another token
                log.warning("registry_denied", detail=self._denial())
            told = reasons
            await asyncio.sleep(_TOKEN_LOOKS_S)

    def statuses(self) -> Mapping[str, WatcherStatus]:
        """Tell how each watcher is now."""
        return {service: item.watcher.status() for service, item in self._followed.items()}

    def follow(self, services: Collection[str]) -> None:
        """Follow exactly these services from now on, before or while `run` runs.

        `web@dc2` is the service in another datacenter; it counts as a service of its own, also
        against `max_watches`. Raises ValueError, and changes nothing, when one of the names cannot
        be one of Consul's.
        """
        for part in services:
            service, datacenter = split_part(part)
            if not is_service_name(service):
                raise ValueError(f"not a service name: {part!r}")
            if datacenter is not None and not is_datacenter(datacenter):
                raise ValueError(f"not a datacenter: {part!r}")
        self._wanted = frozenset(services)
        self._has_changed.set()

    async def run(self) -> None:
        """Keep the followed services fresh until cancelled; once, for its connections end with it.

        What was found stays in the catalog.
        """
        async with self._consul, asyncio.TaskGroup() as tasks:
            try:
                tasks.create_task(self._link.run(), name="consul:link")
                tasks.create_task(self._follow_token(), name="consul:token")
                while True:
                    self._has_changed.clear()
                    await self._forget(self._followed.keys() - self._wanted)
                    for service in sorted(self._wanted - self._followed.keys()):
                        watcher = Watcher(service, self._context)
                        task = tasks.create_task(watcher.run(), name=f"consul:{service}")
                        self._followed[service] = _Followed(watcher, task)
                    await self._has_changed.wait()
            finally:
                self._followed.clear()

    async def _forget(self, services: Collection[str]) -> None:
        """Stop watchers, and forget what they found once they cannot write any more."""
        gone = {service: self._followed.pop(service) for service in services}
        for item in gone.values():
            item.task.cancel()
        if gone:
            await asyncio.wait([item.task for item in gone.values()])
        for service in gone:
            self._catalog.forget(service)

    def _doubt_all(self) -> None:
        for service in self._followed:
            self._catalog.doubt(service)
