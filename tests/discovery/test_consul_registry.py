"""Consul as a Registry, in front of a Consul that misbehaves on command."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from gateway.core.model import Instance, Snapshot
from gateway.core.registry import Registry
from gateway.core.watch import Phase
from gateway.discovery.catalog import Catalog
from gateway.discovery.consul_options import ConsulOptions
from gateway.discovery.consul_registry import ConsulRegistry
from tests.fakes.consul import CUT, SILENCE, FakeConsul, Misbehaviour
from tests.fakes.following import following
from tests.fakes.waiting import time_until, wait_until


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    """Run a fake Consul with two instances of web."""
    async with FakeConsul() as running:
        await running.register("web", "a")
        await running.register("web", "b")
        yield running


def options(
    fake: FakeConsul, *, wait_s: float = 5.0, max_watches: int = 100, poll_s: float = 0.05
) -> ConsulOptions:
    return ConsulOptions(
        address=fake.address, wait_s=wait_s, grace_s=0.1, max_watches=max_watches, poll_s=poll_s
    )


def test_it_is_a_registry() -> None:
    registry: Registry = ConsulRegistry(
        ConsulOptions(),
        catalog=Catalog(clock=time.monotonic),
        clock=time.monotonic,
        random=random.random,
    )

    assert registry.name == "consul"
    assert registry.health().reachable is None
    assert repr(registry).startswith("<ConsulRegistry services=0 <Link unknown")


async def test_services_can_be_added_and_taken_away_while_others_are_not_disturbed(
    fake: FakeConsul,
) -> None:
    await fake.register("other", "o")
    async with following(options(fake)) as seen:
        await seen.wait_for(2)
        await wait_until(lambda: seen.asked_count() == 2)

        seen.registry.follow({"web", "other"})
        await seen.wait_for(1, "other")
        seen.registry.follow({"web"})
        await wait_until(lambda: seen.catalog.get("other") is None)
        await wait_until(lambda: fake.connection_count == 2)  # web's and the one for control

        assert set(seen.registry.statuses()) == {"web"}
        assert seen.asked_count() == 2

        seen.registry.follow({"web", "other"})
        await seen.wait_for(1, "other")


@pytest.mark.parametrize("name", ["../agent/self", "web@", "web@eu/west", "@dc2", "web@dc2@dc3"])
async def test_a_name_that_consul_cannot_have_is_an_error_and_changes_nothing(
    fake: FakeConsul, name: str
) -> None:
    async with following(options(fake)) as seen:
        await seen.wait_for(2)

        with pytest.raises(ValueError, match=name):
            seen.registry.follow({"other", name})

        assert set(seen.registry.statuses()) == {"web"}


async def test_other_datacenters_are_followed_apart_and_count_against_the_watches(
    fake: FakeConsul,
) -> None:
    parts = {"web", "web@dc2", "web@dc3"}
    async with following(options(fake, max_watches=2), parts) as seen:
        for part in parts:
            await seen.wait_for(2, part)

        modes = [status.is_polling for status in seen.registry.statuses().values()]
        assert sorted(modes) == [False, False, True]
        assert {question.params.get("dc") for question in fake.asked("web")} == {None, "dc2", "dc3"}


async def test_it_ends_though_it_is_asking_and_keeps_what_it_found(fake: FakeConsul) -> None:
    """At shutdown requests in hand still need the catalog, and the store writes it once more."""
    async with following(options(fake, wait_s=60)) as seen:
        await seen.wait_for(2)
        await wait_until(lambda: seen.asked_count() == 2)

    assert len(seen.routable()) == 2
    await wait_until(lambda: fake.connection_count == 0)


@pytest.mark.parametrize(
    "wrong",
    [
        Misbehaviour(200, "<html>It works!</html>"),
        Misbehaviour(200, "[]"),
        Misbehaviour(302, "", {"Location": "/"}),
        Misbehaviour(502, "<html>Bad Gateway</html>"),
        Misbehaviour(500, "rpc error", {"X-Consul-Index": "1"}),
        Misbehaviour(403, "ACL not found", {"X-Consul-Index": "1"}),
        Misbehaviour(429, "", {"Retry-After": "1"}),
        CUT,
        SILENCE,
    ],
    ids=str,
)
async def test_whatever_comes_instead_of_an_answer_the_view_stays(
    fake: FakeConsul, wrong: Misbehaviour
) -> None:
    async with following(options(fake, wait_s=0.1)) as seen:
        await seen.wait_for(2)

        fake.every_answer = wrong
        await wait_until(lambda: seen.phase() in {Phase.DEGRADED, Phase.DENIED})

        assert seen.entry().is_stale
        assert seen.routable() == ["a", "b"]
        assert len(seen.published) == 1


@pytest.mark.soak
async def test_trouble_never_makes_a_tight_loop(fake: FakeConsul) -> None:
    fake.every_answer = CUT
    async with following(options(fake)) as seen:
        passed_s = await time_until(lambda: seen.asked_count() > 10)

    assert passed_s > 0.2
    assert len(fake.questions) < 8 + 10 * passed_s + 40  # each doubt also costs a probe


@pytest.mark.soak
async def test_retry_after_is_waited_for(fake: FakeConsul) -> None:
    async with following(options(fake, wait_s=0.05)) as seen:
        await seen.wait_for(2)
        fake.next_answers.append(Misbehaviour(429, "", {"Retry-After": "1"}))
        await wait_until(lambda: seen.phase() is Phase.DEGRADED)

        took_s = await time_until(seen.is_live)

    assert 0.9 < took_s < 12


@pytest.mark.slow
async def test_a_registry_that_lost_its_state_empties_nothing(fake: FakeConsul) -> None:
    async with following(options(fake, wait_s=0.2)) as seen:
        await seen.wait_for(2)

        fake.lose_state()
        await wait_until(lambda: seen.held() == ["a", "b"])
        await fake.register("web", "a")
        await wait_until(lambda: seen.held() == ["b"])
        joined = seen.routable()
        await wait_until(lambda: seen.routable() == ["a"])

    assert joined == ["a", "b"]


async def test_the_first_answer_after_a_start_from_disk_is_not_trusted(fake: FakeConsul) -> None:
    known = tuple(
        Instance(key=f"x/{name}", id=f"x/{name}", host="127.0.0.1", port=80) for name in "cd"
    )
    from_disk = Snapshot(service="web", instances=known, source="disk")
    async with following(options(fake), known=[from_disk]) as seen:
        await seen.wait_for(4)

        assert seen.held() == ["c", "d"]
        assert seen.entry().snapshot.source == "consul"


@pytest.mark.slow
async def test_when_the_registry_is_lost_all_services_are_stale_at_once(fake: FakeConsul) -> None:
    """Not only when their long questions end, which may be half a minute later."""
    await fake.register("other", "o")
    async with following(options(fake, wait_s=60), {"web", "other"}) as seen:
        await seen.wait_for(2)
        await seen.wait_for(1, "other")

        fake.has_leader = False
        await wait_until(lambda: seen.registry.health().reachable is False)

        assert [seen.entry(name).is_stale for name in ("web", "other")] == [True, True]


@pytest.mark.slow
async def test_hundreds_of_services_are_followed_over_few_connections(fake: FakeConsul) -> None:
    services = [f"s{number}" for number in range(300)]
    for service in services:
        await fake.register(service, service)
    # Nobody asks again before all have asked once, however slow the machine is.
    patient = options(fake, max_watches=50, wait_s=600, poll_s=600)
    async with following(patient, services) as seen:
        await wait_until(lambda: len(seen.catalog.entries()) == 300, every_s=0.02)
        open_now = fake.connection_count

    assert open_now <= 52


async def test_services_that_come_and_go_quickly_leave_nothing_behind(
    fake: FakeConsul,
) -> None:
    async with following(options(fake)) as seen:
        for number in range(20):
            seen.registry.follow({"web", f"s{number}"})
            await asyncio.sleep(0)
        await seen.wait_for(2)
        await wait_until(lambda: set(seen.registry.statuses()) == {"web", "s19"})

        assert set(seen.catalog.entries()) <= {"web", "s19"}
