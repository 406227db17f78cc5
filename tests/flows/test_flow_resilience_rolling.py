"""A rolling restart: every instance goes and comes back under load, and no client sees it.

Each one is taken out of a real Consul, has a second to finish, is ended, started again at the same
address, and registered. GATEWAY_TEST_ROLLING_REQUESTS says how many requests there are at least.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.gateway import RunningGateway, ask, routes_file
from tests.fakes.instance import Instance
from tests.fakes.load import hammer
from tests.fakes.programs import find_program
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.consul, pytest.mark.soak, pytest.mark.timeout(300)]

SERVICE = "user-service"
AT_LEAST = int(os.environ.get("GATEWAY_TEST_ROLLING_REQUESTS", "3000"))
REQUESTS = (ask("/"), ask("/", "POST", body=b"money"))


@dataclass(slots=True)
class Outcome:
    """All that clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    bodies: Counter[bytes] = field(default_factory=Counter)


async def load_until(is_over: asyncio.Event, url: str, outcome: Outcome) -> None:
    """Send GETs and POSTs alike until it is over, and as many as there must be."""
    while not is_over.is_set() or outcome.statuses.total() < AT_LEAST:
        load = await hammer(
            url, total=500, concurrency=8, make_request=lambda number: REQUESTS[number % 2]
        )
        outcome.statuses += load.statuses
        outcome.bodies += load.bodies
        outcome.errors += load.errors


async def restart(agent: ConsulAgent, gateway: RunningGateway, one: Instance) -> None:
    """Take it out, let it finish, end it, start it, and put it in again."""
    fleet = gateway.gateway.engine.fleets[SERVICE]
    await agent.deregister(one.name)
    await asyncio.sleep(1.0)
    one.kill()
    await one.start()
    await agent.register(SERVICE, one.name, one.port)
    await wait_until(lambda: len(fleet.members) == 3)


async def test_a_rolling_restart_under_load_is_seen_by_no_client(tmp_path: Path) -> None:
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")
    routes = routes_file({}, {"match": {"path_prefix": "/"}, "service": SERVICE})
    outcome, is_over = Outcome(), asyncio.Event()
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(ConsulAgent(program, tmp_path))
        instances = [await stack.enter_async_context(Instance(name)) for name in "abc"]
        for one in instances:
            await agent.register(SERVICE, one.name, one.port)
        gateway = await stack.enter_async_context(
            RunningGateway(
                routes,
                face="fast",
                folder=tmp_path / "gateway",
                registry="consul",
                consul_address=agent.address,
            )
        )
        fleet = gateway.gateway.engine.fleets[SERVICE]
        await wait_until(lambda: len(fleet.members) == 3)
        async with asyncio.TaskGroup() as tasks:
            url = f"http://127.0.0.1:{gateway.port}/"
            tasks.create_task(load_until(is_over, url, outcome))
            for one in instances:
                await restart(agent, gateway, one)
            is_over.set()

    assert outcome.errors == []
    assert outcome.statuses == {200: outcome.statuses.total()}
    assert outcome.statuses.total() >= AT_LEAST
    assert set(outcome.bodies) == {b"a", b"b", b"c"}
