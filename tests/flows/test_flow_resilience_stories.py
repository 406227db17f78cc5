"""What the simulator plays, scaled down: instances that flap, half of them gone, cold starts.

Instances and gateways are programs of their own; they are killed, frozen and started under load.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.consul_agent import ConsulAgent, free_ports
from tests.fakes.gateway import RunningGateway, Serve, routes_file, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.instance import Instance
from tests.fakes.load import Load, hammer
from tests.fakes.programs import find_program
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.soak

CONNECT_S, RESPONSE_S = 0.5, 0.8
TIMEOUTS = {"connect": "500ms", "response": "800ms"}


@asynccontextmanager
async def instances(names: str) -> AsyncIterator[list[Instance]]:
    """Run one for each letter."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Instance(name)) for name in names]


def url(gateway: RunningGateway) -> str:
    return f"http://127.0.0.1:{gateway.port}/"


def opened(gateway: RunningGateway) -> set[str]:
    """Name the instances whose Breakers opened so far."""
    return {event["address"] for event in gateway.logged("breaker_opened")}


async def hammer_until(is_over: asyncio.Event, url: str) -> Load:
    """Send GETs until it is over."""
    shots: list[Load] = []
    while not is_over.is_set():
        shots.append(await hammer(url, total=200, concurrency=8))
    return Load(tuple(shot for load in shots for shot in load.shots))


async def test_an_instance_that_flaps_is_seen_by_no_client_and_is_back_in_the_end(
    serve: Serve,
) -> None:
    """Killed and started five times; its Breaker learns, and it is not shut out for ever."""
    breaker = {"circuit_breaker": {"open_for": "300ms", "max_open_for": "1s"}}
    is_over = asyncio.Event()
    async with instances("fst") as all_three:
        flapping = all_three[0]
        routes = routes_to(*(one.port for one in all_three), service=breaker)
        async with serve(routes) as gateway, asyncio.TaskGroup() as tasks:
            during = tasks.create_task(hammer_until(is_over, url(gateway)))
            for _ in range(5):
                await asyncio.sleep(0.2)
                flapping.kill()
                await asyncio.sleep(0.2)
                await flapping.start()
            is_over.set()
            load = await during
            flaps = len(gateway.logged("breaker_opened"))
            who = opened(gateway)
            took_s = await time_until_served(url(gateway), b"f", share=0.25)

    assert load.errors == []
    assert load.statuses.keys() == {200}
    assert who == {f"127.0.0.1:{flapping.port}"}
    assert flaps >= 2
    assert took_s < 50


async def time_until_served(url: str, name: bytes, *, share: float) -> float:
    """Send rounds of GETs until so many of a round come from this instance; give the seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        load = await hammer(url, total=200, concurrency=8)
        assert load.statuses == {200: 200}
        if load.bodies[name] >= share * 200:
            return loop.time() - began_s
        assert loop.time() < began_s + 50, load.bodies
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_when_half_of_the_instances_go_at_once_no_get_is_lost(serve: Serve, how: str) -> None:
    """Two of four: frozen ones cost a client as many timeouts as there are frozen ones, once."""
    async with instances("abcd") as all_four:
        gone, left = all_four[:2], all_four[2:]
        routes = routes_to(*(one.port for one in all_four), timeouts=TIMEOUTS)
        async with serve(routes) as gateway, asyncio.TaskGroup() as tasks:
            load = tasks.create_task(hammer(url(gateway), total=6000, concurrency=16))
            await asyncio.sleep(0.2)
            for one in gone:
                one.kill() if how == "killed" else one.freeze()
            during = await load
            away = {f"127.0.0.1:{one.port}" for one in gone}
            await wait_until(lambda: opened(gateway) == away)
            after = await hammer(url(gateway), total=500)
            for one in gone:
                if how == "frozen":
                    one.thaw()

    assert during.errors == after.errors == []
    assert during.statuses == {200: 6000}
    assert after.statuses == {200: 500}
    assert set(after.bodies) == {one.name.encode() for one in left}
    assert during.latency_s(1.0) < 10 * len(gone) * (CONNECT_S + RESPONSE_S)
    assert after.latency_s(1.0) < 10 * RESPONSE_S


async def hold_back(one: Instance, is_over: asyncio.Event) -> None:
    """Let a process run for a tenth of the time only: it gets slow, and never fails."""
    while not is_over.is_set():
        one.freeze()
        await asyncio.sleep(0.045)
        one.thaw()
        await asyncio.sleep(0.005)


async def test_a_slow_instance_gets_less_and_nobody_waits_for_its_queue(serve: Serve) -> None:
    """With all defaults: whoever has many in hand already is not chosen."""
    is_over = asyncio.Event()
    async with instances("slo") as all_three:
        routes = routes_to(*(one.port for one in all_three))
        async with serve(routes) as gateway, asyncio.TaskGroup() as tasks:
            tasks.create_task(hold_back(all_three[0], is_over))
            load = await hammer(url(gateway), total=4000, concurrency=16)
            is_over.set()

    assert load.errors == []
    assert load.statuses == {200: 4000}
    assert 0 < load.bodies[b"s"] < 0.15 * 4000
    assert load.latency_s(0.5) < 0.45
    assert load.latency_s(1.0) < 10.0


async def test_a_slow_instance_is_left_alone_where_the_service_says_what_is_slow(
    serve: Serve,
) -> None:
    breaker = {"slow_after": "20ms", "slow_ratio": 0.3, "min_requests": 10, "open_for": "30s"}
    is_over = asyncio.Event()
    async with instances("slo") as all_three:
        slow = all_three[0]
        service = {"circuit_breaker": breaker}
        routes = routes_to(*(one.port for one in all_three), service=service)
        async with serve(routes) as gateway, asyncio.TaskGroup() as tasks:
            tasks.create_task(hold_back(slow, is_over))
            during = asyncio.Event()
            loading = tasks.create_task(hammer_until(during, url(gateway)))
            await wait_until(lambda: opened(gateway))
            during.set()
            before = await loading
            after = await hammer(url(gateway), total=500, concurrency=8)
            (event, *_) = gateway.logged("breaker_opened")
            is_over.set()

    assert before.statuses.keys() == after.statuses.keys() == {200}
    assert (event["address"], event["why"]) == (f"127.0.0.1:{slow.port}", "slow_answers")
    assert after.bodies[b"s"] == 0


@pytest.mark.consul
async def test_gateways_that_start_into_a_crowd_fail_nobody_and_spread_it_at_once(
    tmp_path: Path,
) -> None:
    """Three `gateway run` at the same moment, with a real Consul; clients knock from the start."""
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")
    routes = routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"})
    ports = free_ports(3)
    async with ConsulAgent(program, tmp_path) as agent, instances("abcde") as all_five:
        for one in all_five:
            await agent.register("web", one.name, one.port)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            crowds = [tasks.create_task(knock(port)) for port in ports]
            starting = [
                GatewayRun(
                    routes,
                    tmp_path / f"gateway-{port}",
                    bind=f"127.0.0.1:{port}",
                    registry="consul",
                    consul_address=agent.address,
                )
                for port in ports
            ]
            await asyncio.gather(*(stack.enter_async_context(one) for one in starting))
            loads = await asyncio.gather(*crowds)

    assert [load.errors for load in loads] == [[]] * 3
    assert [load.statuses for load in loads] == [{200: 1000}] * 3
    assert spread(loads) <= 1.2


async def knock(port: int) -> Load:
    """Try to connect until somebody is there; then send a thousand GETs as soon as may be."""
    await wait_until(lambda: _listens(port))
    return await hammer(f"http://127.0.0.1:{port}/", total=1000, concurrency=32)


def spread(loads: Sequence[Load]) -> float:
    """Divide what the busiest instance got by the mean."""
    counts = sum((load.bodies for load in loads), Counter[bytes]())
    return max(counts.values()) / statistics.mean(counts.values())


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
