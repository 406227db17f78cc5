"""Up or down, found out once for all watchers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from gateway.core.watch import Trouble, WatchPolicy
from gateway.discovery.link import Link, LinkPolicy
from gateway.discovery.source import SourceError
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import wait_until

QUICK = LinkPolicy(
    heartbeat_s=60,
    resync_s=0,
    retry=WatchPolicy(backoff_min_s=0.01, backoff_max_s=0.02),
)


class ScriptedProbe:
    """A probe that succeeds or fails as it is told, and can be made to take its time."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.count = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> None:
        self.count += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def probe() -> ScriptedProbe:
    return ScriptedProbe()


@asynccontextmanager
async def running(probe: ScriptedProbe, policy: LinkPolicy = QUICK) -> AsyncIterator[Link]:
    """Run a link until the block ends."""
    link = Link(
        probe,
        address="http://10.0.0.1:8500",
        clock=FakeClock(5.0),
        random=lambda: 1.0,
        policy=policy,
    )
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.run())
        try:
            yield link
        finally:
            task.cancel()


GONE = SourceError(Trouble.UNREACHABLE, "refused")


async def test_it_is_unknown_until_the_first_probe(probe: ScriptedProbe) -> None:
    link = Link(probe, clock=FakeClock(5.0), random=lambda: 1.0)

    assert link.health().reachable is None
    assert not link.is_up
    assert repr(link) == "<Link unknown probes=0 detail=None>"


async def test_it_goes_up_with_the_first_probe_that_succeeds(probe: ScriptedProbe) -> None:
    probe.error = GONE
    async with running(probe) as link:
        await wait_until(lambda: probe.count > 3)
        assert link.health().reachable is False
        assert link.health().detail == "unreachable: refused"
        probe.error = None
        await link.wait_until_up()

        assert link.health().reachable is True
        assert link.health().detail is None


async def test_while_it_is_up_it_is_probed_at_every_heartbeat(probe: ScriptedProbe) -> None:
    policy = LinkPolicy(heartbeat_s=0.01, heartbeat_spread_s=0, retry=QUICK.retry)
    async with running(probe, policy) as link:
        await wait_until(lambda: probe.count > 3)
        probe.error = GONE

        await wait_until(lambda: not link.is_up)


async def test_no_connection_takes_it_down_at_once_and_starts_probing(
    probe: ScriptedProbe,
) -> None:
    async with running(probe) as link:
        await link.wait_until_up()
        probe.error = GONE

        link.lost("refused")
        was_up = link.is_up
        await wait_until(lambda: probe.count > 2)

        assert not was_up


async def test_a_doubt_is_settled_by_a_probe_that_all_who_doubt_share(
    probe: ScriptedProbe,
) -> None:
    async with running(probe) as link:
        await link.wait_until_up()

        verdicts = await asyncio.gather(*(link.verify() for _ in range(40)))

        assert verdicts == [True] * 40
        assert probe.count == 2


async def test_a_doubt_that_is_right_takes_it_down(probe: ScriptedProbe) -> None:
    async with running(probe) as link:
        await link.wait_until_up()
        probe.error = GONE

        assert not await link.verify()
        assert not await link.verify()  # and nobody waits for a probe while it is down
        assert not link.is_up


async def test_a_doubt_during_a_probe_is_settled_by_the_next_one(probe: ScriptedProbe) -> None:
    """The probe that is under way may have been answered before the trouble began."""
    async with running(probe) as link, asyncio.TaskGroup() as tasks:
        await link.wait_until_up()
        probe.may_end.clear()
        early = tasks.create_task(link.verify())
        await wait_until(lambda: probe.count == 2)
        late = tasks.create_task(link.verify())
        await asyncio.sleep(0)

        probe.may_end.set()

        assert await early
        assert await late
        assert probe.count == 3


async def test_a_doubt_during_a_probe_that_fails_does_not_wait_for_the_next(
    probe: ScriptedProbe,
) -> None:
    policy = LinkPolicy(retry=WatchPolicy(backoff_min_s=60, backoff_max_s=60))
    async with running(probe, policy) as link, asyncio.TaskGroup() as tasks:
        await link.wait_until_up()
        probe.may_end.clear()
        early = tasks.create_task(link.verify())
        await wait_until(lambda: probe.count == 2)
        late = tasks.create_task(link.verify())
        await asyncio.sleep(0)
        probe.error = GONE

        probe.may_end.set()

        assert not await early
        assert not await late


async def test_transitions_are_logged_and_told_once(probe: ScriptedProbe) -> None:
    lost: list[None] = []
    with capture_logs() as logs:
        async with running(probe) as link:
            link._on_lost = lambda: lost.append(None)
            await link.wait_until_up()
            probe.error = GONE
            for _ in range(10):
                link.lost("refused")
            await wait_until(lambda: probe.count > 5)
            probe.error = None
            await link.wait_until_up()

    assert [entry["event"] for entry in logs] == [
        "registry_found",
        "registry_lost",
        "registry_found",
    ]
    assert len(lost) == 1


async def test_a_fault_of_our_own_does_not_end_the_only_task_that_probes(
    probe: ScriptedProbe,
) -> None:
    with capture_logs() as logs:
        async with running(probe) as link:
            probe.error = ZeroDivisionError("ours")
            await wait_until(lambda: probe.count > 2)
            probe.error = None
            await link.wait_until_up()

    assert {"probe_failed"} == {one["event"] for one in logs if one["log_level"] == "error"}


async def test_after_an_outage_watchers_come_back_spread_over_a_while(
    probe: ScriptedProbe,
) -> None:
    policy = LinkPolicy(resync_s=0.05, retry=QUICK.retry)
    probe.error = GONE
    async with running(probe, policy) as link:
        await wait_until(lambda: link.health().reachable is False)
        async with asyncio.TaskGroup() as tasks:
            back = tasks.create_task(link.wait_until_up())
            probe.error = None
            await wait_until(lambda: link.is_up, every_s=0.001)
            came_at_once = back.done()

    assert not came_at_once


async def test_going_and_coming_are_logged_with_the_address(probe: ScriptedProbe) -> None:
    with capture_logs() as logs:
        async with running(probe) as link:
            await wait_until(lambda: link.is_up)
            link.lost("refused")
            await wait_until(lambda: link.is_up)

    told = [(one["event"], one["registry"], one["address"]) for one in logs]
    assert told == [
        (event, "consul", "http://10.0.0.1:8500")
        for event in ("registry_found", "registry_lost", "registry_found")
    ]
    assert link.health().address == "http://10.0.0.1:8500"
