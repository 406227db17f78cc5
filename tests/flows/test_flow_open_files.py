"""A process with few file descriptors: clients are bounded, and everything else goes on."""

from __future__ import annotations

import asyncio
import resource
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.scenes import hold, play, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow


async def test_clients_are_bounded_by_the_open_files_and_the_admin_port_goes_on(
    tmp_path: Path,
) -> None:
    """A hard limit of 300 is enough for 75 clients, whatever the settings say."""
    released = asyncio.Event()
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        web.on_request(play(hold(released), respond()))
        gateway = GatewayRun(routes_to(web), tmp_path)
        gateway.open_files = (100, 300)
        await stack.enter_async_context(gateway)
        (told,) = gateway.logged("open_files_too_few")
        assert (told["was"], told["limit"], told["max_connections"]) == (100, 300, 75)
        assert "GATEWAY_MAX_CONNECTIONS=75" in told["advice"]

        served = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(75)]
        for client in served:
            await client.send(ask())
        await wait_until(lambda: len(web.requests) == 75)  # who is idle would give way
        over = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(100)]
        for client in over:
            said = await client.read_until_closed()
            assert said == b"" or said.startswith(b"HTTP/1.1 503 ")

        assert (await gateway.ask_admin("/readyz")).status_code == 200
        released.set()
        for client in served:
            assert (await client.read_response()).status == 200
        assert gateway.logged("accept_failed") == []


async def test_a_lack_of_descriptors_is_logged_once_and_is_over_when_it_is_over(
    tmp_path: Path,
) -> None:
    """Somebody else takes them all: here the limit falls below what is open already."""
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(GatewayRun(routes_to(web), tmp_path))
        before = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        waiting = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(10)]
        for client in waiting:
            await client.send(ask())
        await gateway.wait_for("accept_failed")
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, before)
        answers = [await client.read_response() for client in waiting]
        await gateway.wait_for("accept_recovered")

        assert {one.status for one in answers} == {200}
        assert len(gateway.logged("accept_failed")) == 1
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0


async def test_with_too_few_descriptors_to_work_it_refuses_to_start(tmp_path: Path) -> None:
    gateway = GatewayRun(routes_to(1), tmp_path)
    gateway.open_files = (63, 63)
    gateway.launch()
    try:
        assert await gateway.ended() == 1
    finally:
        gateway.kill()
    assert gateway.logged("listening") == []
    assert "gateway: only 63 files may be open at once, and 64 is the least" in gateway.said
    assert "ulimit -Hn" in gateway.said


@pytest.mark.parametrize("limit", [64, 128, 256])
async def test_few_descriptors_are_shared_out_and_every_client_that_has_a_place_is_served(
    tmp_path: Path, limit: int
) -> None:
    """As many clients as there may be, each with a connection to an instance of its own."""
    released = asyncio.Event()
    count = (limit - limit // 2) // 2
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        web.on_request(play(hold(released), respond()))
        gateway = GatewayRun(routes_to(web), tmp_path)
        gateway.open_files = (limit, limit)
        await stack.enter_async_context(gateway)
        (told,) = gateway.logged("open_files_too_few")
        assert (told["limit"], told["max_connections"]) == (limit, count)
        clients = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(count)]
        for client in clients:
            await client.send(ask())
        await wait_until(lambda: len(web.requests) == count)

        assert (await gateway.ask_admin("/readyz")).status_code == 200
        released.set()
        assert {(await one.read_response()).status for one in clients} == {200}
        assert gateway.logged("accept_failed") == []
