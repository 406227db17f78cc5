"""Which instances are checked, and when; the Fleets are told what was found.

The one rule: checks follow the Fleets, and a Member keeps what was found of it. An instance that is
new is checked from now on and gets traffic as the registry says until then; one that is gone, or
in maintenance, is not checked any more. Nothing here is ever waited for by a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from gateway.core.config import ServiceConfig
from gateway.core.fleet import Fleet, Member
from gateway.core.health import UNKNOWN, CheckState, first_delay_s
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import HealthCheckPolicy
from gateway.health.probe import Secured, probe, reason_of
from gateway.names import NameLateError, Names

_log = structlog.get_logger()

# Enough for a thousand instances, a tenth of them frozen; more would be felt by requests.
_AT_ONCE = 64
_BEGUN_AT_ONCE = 100
# Who is switched off on purpose, or not meant, is left in peace.
_LEFT_ALONE = frozenset({Status.MAINTENANCE, Status.UNTAGGED})

_Key = tuple[str, str]


class Fleets(Protocol):
    """Whoever has the Fleets in use."""

    @property
    def fleets(self) -> Mapping[str, Fleet[Any]]:
        """The Fleets by the names of their services."""
        ...


class HealthChecks:
    """Checks the instances of all services that say how.

    `secure` tells how an instance is reached over TLS, None where it is not. `clock` is monotonic,
    `random` gives numbers in [0, 1).
    """

    def __init__(
        self,
        engine: Fleets,
        secure: Callable[[ServiceConfig, Instance], Secured | None],
        names: Names | None = None,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._names = names or Names()
        self._engine = engine
        self._secure = secure
        self._clock = clock
        self._random = random
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._has_changed = asyncio.Event()
        self._services: Mapping[str, ServiceConfig] = {}
        self._running: dict[_Key, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<HealthChecks {len(self._running)} instances>"

    def use(self, services: Mapping[str, ServiceConfig]) -> None:
        """Check as these services say from now on, before or while `run` runs."""
        self._services = services
        self._has_changed.set()

    def follow(self, snapshot: Snapshot) -> None:
        """Follow a Snapshot that its Fleet has taken."""
        if self._policy(snapshot.service) is not None:
            self._has_changed.set()

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._has_changed.clear()
                    wanted = self._wanted()
                    for key, task in tuple(self._running.items()):
                        if key not in wanted or task.done():
                            self._stop(key)
                    for count, key in enumerate(wanted - self._running.keys(), start=1):
                        work = self._check_for_ever(*key)
                        self._running[key] = tasks.create_task(work, name=f"check:{key[1]}")
                        if count % _BEGUN_AT_ONCE == 0:
                            await asyncio.sleep(0)
                    await self._has_changed.wait()
        finally:
            self._running.clear()

    def _wanted(self) -> set[_Key]:
        return {
            (service, key)
            for service, fleet in self._engine.fleets.items()
            if self._policy(service) is not None
            for key, member in fleet.members.items()
            if member.instance.status not in _LEFT_ALONE
        }

    def _stop(self, key: _Key) -> None:
        """Check an instance no more, and forget what was found if it is still there."""
        self._running.pop(key).cancel()
        fleet = self._engine.fleets.get(key[0])
        if fleet is not None:
            fleet.checked(key[1], UNKNOWN)

    def _policy(self, service: str) -> HealthCheckPolicy | None:
        config = self._services.get(service)
        return config.health_check if config is not None else None

    def _member(self, service: str, key: str) -> Member[Any] | None:
        fleet = self._engine.fleets.get(service)
        return fleet.members.get(key) if fleet is not None else None

    async def _check_for_ever(self, service: str, key: str) -> None:
        """Check one instance again and again, by the policy and the address of the moment."""
        policy = self._policy(service)
        delay_s = first_delay_s(policy, self._random()) if policy is not None else 0.0
        while True:
            await asyncio.sleep(delay_s)
            policy, member = self._policy(service), self._member(service, key)
            if policy is None or member is None:
                return  # it is gone: `run` will see that too
            try:
                # Before the turn: dead names must not hold up the checks of others.
                addresses = await self._names.of(f"check:{service}").addresses(
                    member.instance.host, within_s=policy.timeout_s
                )
                async with self._turns:
                    found = await self._check(self._services[service], member, policy, addresses)
            except NameLateError:
                found = member.check  # that says nothing about the instance
            except (OSError, UnicodeError) as error:
                why = f"{member.instance.host}: {reason_of(error)}"
                found = self._take(service, member, policy, why)
            except Exception:  # noqa: BLE001 -- a mistake of ours says nothing about the instance
                _log.exception("health_check_failed", service=service, instance=key)
                found = member.check
            delay_s = found.delay_s(policy, self._random())

    async def _check(
        self,
        service: ServiceConfig,
        member: Member[Any],
        policy: HealthCheckPolicy,
        addresses: Sequence[str],
    ) -> CheckState:
        """Check once; return what is known then."""
        secured = self._secure(service, member.instance)
        why = await probe(member.instance, policy, secured, addresses)
        return self._take(service.name, member, policy, why)

    def _take(
        self, service: str, member: Member[Any], policy: HealthCheckPolicy, why: str | None
    ) -> CheckState:
        """Tell the Fleet what a check found, None for nothing wrong; return what is known then."""
        before, now_s = member.check, self._clock()
        found = before.passed(policy, now_s) if why is None else before.failed(why, policy, now_s)
        fleet = self._engine.fleets.get(service)
        if member.is_gone or fleet is None:
            return found
        fleet.checked(member.instance.key, found)
        if found.opinion is not before.opinion:
            _log_change(fleet, member, before)
        return found


def _log_change(fleet: Fleet[Any], member: Member[Any], before: CheckState) -> None:
    """Log that checks let an instance in or take it out; a first success is no news."""
    instance, check = member.instance, member.check
    log = _log.bind(service=fleet.service, instance=instance.id, address=instance.authority)
    if not check.is_failing:
        if before.is_failing:
            log.info("instance_healthy")
        return
    log.warning("instance_unhealthy", why=check.why, registry=instance.status.value)
    if not fleet.tiers:
        _log.error("no_healthy_instance", service=fleet.service, detail=fleet.absence())
