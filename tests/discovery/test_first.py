"""The start: who is waited for, and for how long."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from gateway.core.model import Snapshot
from gateway.discovery.first import FirstSnapshots
from tests.fakes.waiting import PATIENCE_S


def heard(service: str) -> Snapshot:
    """Make a Snapshot of nobody: that is an answer too."""
    return Snapshot(service=service, instances=(), source="test")


async def test_it_waits_until_the_last_of_them_was_heard_of() -> None:
    first = FirstSnapshots(["web", "users"])
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(first.wait(within_s=60))
        for _ in range(2):
            first.follow(heard("web"))
            await asyncio.sleep(0)
        assert not waiting.done()
        assert repr(first) == "<FirstSnapshots missing=1>"
        first.follow(heard("users"))

    assert waiting.done()


async def test_without_services_there_is_nothing_to_wait_for() -> None:
    async with asyncio.timeout(PATIENCE_S):
        await FirstSnapshots([]).wait(within_s=60)


async def test_it_says_whom_it_misses_when_the_time_is_over() -> None:
    first = FirstSnapshots(["web", "users", "orders"])
    first.follow(heard("web"))

    with capture_logs() as events:
        await first.wait(within_s=0.05)

    assert [(one["event"], one["missing_snapshots"]) for one in events] == [
        ("start_not_awaited", ["orders", "users"])
    ]


async def test_no_time_is_no_wait_even_if_everybody_is_missing() -> None:
    with capture_logs() as events:
        await FirstSnapshots(["web"]).wait(within_s=0)

    assert [one["event"] for one in events] == ["start_not_awaited"]
