"""Who is checked, when, and what comes of it: real instances, and Fleets without an engine."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from gateway.core.config import ServiceConfig
from gateway.core.fleet import Fleet
from gateway.core.health import UNKNOWN, Opinion
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import BreakerPolicy, HealthCheckPolicy
from gateway.health.checks import HealthChecks
from gateway.health.probe import Secured
from gateway.names import Names
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

QUICK = HealthCheckPolicy(
    path="/health", interval_s=0.02, timeout_s=1.0, healthy_after=2, unhealthy_after=2
)
WEB = ServiceConfig(name="web", health_check=QUICK)


def instance(upstream: ScriptedUpstream, *, status: Status = Status.PASSING) -> Instance:
    return Instance(
        key=upstream.authority, id="web", host="127.0.0.1", port=upstream.port, status=status
    )


@dataclass
class Checking:
    """A Fleet that is checked, with all that is needed to tell it something."""

    fleets: dict[str, Fleet[str]] = field(default_factory=dict)
    events: list[MutableMapping[str, Any]] = field(default_factory=list)
    names: Names | None = None
    checks: HealthChecks = field(init=False)

    def __post_init__(self) -> None:
        self.checks = HealthChecks(
            self, self.secure, self.names, clock=time.monotonic, random=random.Random(1).random
        )
        self.fleets["web"] = Fleet("web", lambda one: one.key, breaker=BreakerPolicy())

    def secure(self, _service: ServiceConfig, _instance: Instance) -> Secured | None:
        return None

    def follow(self, *instances: Instance) -> None:
        snapshot = Snapshot(service="web", instances=instances, source="test")
        self.fleets["web"].apply(snapshot)
        self.checks.follow(snapshot)

    def opinion(self, upstream: ScriptedUpstream) -> Opinion:
        return self.fleets["web"].members[upstream.authority].check.opinion

    async def until(self, upstream: ScriptedUpstream, opinion: Opinion) -> None:
        await wait_until(lambda: self.opinion(upstream) is opinion)

    def logged(self, name: str) -> list[MutableMapping[str, Any]]:
        return [event for event in self.events if event["event"] == name]


@asynccontextmanager
async def checking(
    services: Mapping[str, ServiceConfig], made: Checking | None = None
) -> AsyncIterator[Checking]:
    made = made or Checking()
    made.checks.use(services)
    with capture_logs() as events:
        made.events = events
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.checks.run())
            try:
                yield made
            finally:
                running.cancel()


@pytest.fixture
async def web() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


async def test_whoever_fails_is_taken_out_and_let_in_again_when_it_is_well(
    web: ScriptedUpstream,
) -> None:
    async with checking({"web": WEB}) as seen, ScriptedUpstream() as other:
        seen.follow(instance(web), instance(other))
        await seen.until(web, Opinion.HEALTHY)

        web.on_request(respond(503))
        await seen.until(web, Opinion.UNHEALTHY)
        assert [[m.instance.port for m in tier] for tier in seen.fleets["web"].tiers] == [
            [other.port]
        ]

        web.on_request(respond())
        await seen.until(web, Opinion.HEALTHY)
        assert seen.fleets["web"].size == 2

    assert [(event["address"], event["why"]) for event in seen.logged("instance_unhealthy")] == [
        (web.authority, "/health: 503")
    ]
    assert [event["address"] for event in seen.logged("instance_healthy")] == [web.authority]
    assert seen.logged("no_healthy_instance") == []


def no_such_name(*_: object, **__: object) -> NoReturn:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("gone.test", "gone.test: name or service not known"),
        ("a" * 64, f"{'a' * 64}: encoding with 'idna' codec failed"),
    ],
)
async def test_an_instance_whose_name_does_not_exist_fails_its_check(host: str, why: str) -> None:
    names = Names(lookup=no_such_name if host == "gone.test" else None)
    async with checking({"web": WEB}, Checking(names=names)) as seen:
        seen.follow(Instance(key="web", id="web", host=host, port=80))
        member = seen.fleets["web"].members["web"]
        await wait_until(lambda: member.check.is_failing)

    (event,) = seen.logged("instance_unhealthy")
    assert event["why"].startswith(why)
    assert seen.logged("health_check_failed") == []


async def test_when_checks_take_the_last_one_out_the_log_says_so(web: ScriptedUpstream) -> None:
    web.on_request(respond(404))
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web))
        await seen.until(web, Opinion.UNHEALTHY)

    (event,) = seen.logged("no_healthy_instance")
    assert event["log_level"] == "error"
    assert event["detail"] == (
        "service 'web' has no healthy instance: 1 failing its health check (/health: 404)"
    )


async def test_a_service_without_the_key_is_not_checked(web: ScriptedUpstream) -> None:
    async with checking({"web": ServiceConfig(name="web")}) as seen:
        seen.follow(instance(web))
        await asyncio.sleep(0.1)  # there is no event for what does not happen

        assert seen.opinion(web) is Opinion.UNKNOWN
    assert web.connections == []


async def test_an_instance_in_maintenance_is_left_in_peace_and_starts_anew(
    web: ScriptedUpstream,
) -> None:
    web.on_request(respond(503))
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web))
        await seen.until(web, Opinion.UNHEALTHY)

        seen.follow(instance(web, status=Status.MAINTENANCE))
        await wait_until(lambda: repr(seen.checks) == "<HealthChecks 0 instances>")
        assert seen.fleets["web"].members[web.authority].check is UNKNOWN
        asked_count = len(web.requests)

        seen.follow(instance(web))
        assert seen.fleets["web"].size == 1
        await seen.until(web, Opinion.UNHEALTHY)
        assert len(web.requests) >= asked_count + 2


async def test_one_that_the_registry_calls_critical_is_checked_so_that_it_cannot_slip_in(
    web: ScriptedUpstream,
) -> None:
    web.on_request(respond(503))
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web, status=Status.CRITICAL))
        await seen.until(web, Opinion.UNHEALTHY)

        seen.follow(instance(web))
        assert seen.fleets["web"].size == 0


async def test_an_instance_that_is_gone_is_not_checked_any_more(web: ScriptedUpstream) -> None:
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web))
        await seen.until(web, Opinion.HEALTHY)

        seen.follow()
        await wait_until(lambda: repr(seen.checks) == "<HealthChecks 0 instances>")


async def test_services_can_change_while_checks_run(web: ScriptedUpstream) -> None:
    """The key is taken away, and what was found goes with it; then it is there again."""
    web.on_request(respond(503))
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web))
        await seen.until(web, Opinion.UNHEALTHY)

        seen.checks.use({"web": ServiceConfig(name="web")})
        await wait_until(lambda: seen.fleets["web"].size == 1)

        seen.checks.use({"web": WEB})
        await seen.until(web, Opinion.UNHEALTHY)


async def test_another_policy_is_used_from_the_next_check_on(web: ScriptedUpstream) -> None:
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web))
        await seen.until(web, Opinion.HEALTHY)

        seen.checks.use({"web": replace(WEB, health_check=replace(QUICK, path="/other"))})
        await web.wait_until(lambda: web.requests[-1].target == b"/other")


async def test_a_service_that_no_route_uses_any_more_is_let_go(web: ScriptedUpstream) -> None:
    async with checking({"web": WEB}) as seen:
        seen.follow(instance(web))
        await seen.until(web, Opinion.HEALTHY)

        seen.fleets.clear()
        seen.checks.use({})
        await wait_until(lambda: repr(seen.checks) == "<HealthChecks 0 instances>")


async def test_a_mistake_of_ours_is_logged_and_takes_nobody_out(web: ScriptedUpstream) -> None:
    class Broken(Checking):
        def secure(self, _service: ServiceConfig, _instance: Instance) -> Secured | None:
            raise RuntimeError("a mistake")

    async with checking({"web": WEB}, Broken()) as seen:
        seen.follow(instance(web))
        await wait_until(lambda: len(seen.logged("health_check_failed")) >= 2)

        assert seen.fleets["web"].size == 1


async def test_checks_of_many_begin_at_different_times(web: ScriptedUpstream) -> None:
    """A start of the gateway is no wave of checks: chance spreads them over the interval."""
    policy = replace(QUICK, interval_s=3600.0)
    keys = [f"i{number}" for number in range(20)]
    chances = [number % 2 / 2 for number in range(20)]  # one half now, the other in half an hour
    async with checking({"web": replace(WEB, health_check=policy)}) as seen:
        seen.checks._random = iter([*chances, *[0.5] * 20]).__next__
        seen.follow(*(replace(instance(web), key=key) for key in keys))
        members = seen.fleets["web"].members.values()

        def checked_count() -> int:
            return sum(one.check.changed_at_s is not None for one in members)

        await wait_until(lambda: checked_count() >= 10)

        assert checked_count() == len(web.requests) == 10
