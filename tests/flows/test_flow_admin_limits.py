"""The admin port has limits of its own, and answers whatever anybody does to it."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.upstream import ScriptedUpstream

ALIVE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HEALTH = ALIVE.replace(b"/livez", b"/health")
MOST = 64
MIB = 1024 * 1024
REFUSALS = (405, 413, 414, 431)


def gateway_of(web: ScriptedUpstream, folder: Path, **settings: object) -> RunningGateway:
    return RunningGateway(routes_to(web), face="fast", folder=folder, **settings)


def rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


async def sent_until_refused(client: RawClient, piece: bytes, times: int) -> bytes:
    """Send the piece so often, or until the other side has had enough; give what it said."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(times):
            await client.send(piece)
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await client.read_until_closed()
    return said


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"x: y\r\n" * 10_000),
        (b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nx: ", b"y" * 60_000),
        (b"GET /", b"y" * 60_000),
        (
            b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"ea60\r\n" + b"y" * 60_000 + b"\r\n",
        ),
    ],
    ids=["fields", "one value", "one path", "body"],
)
async def test_endless_requests_are_refused_long_before_their_end(
    tmp_path: Path, start: bytes, piece: bytes
) -> None:
    """61 MB were taken in, and 25 s of CPU spent on them, before."""
    async with ScriptedUpstream() as web, gateway_of(web, tmp_path) as gateway:
        async with RawClient(gateway.admin_port) as client:
            await client.send(start)
            said = await sent_until_refused(client, piece, 1000)
        assert said[:12] in {
            b"HTTP/1.1 413",
            b"HTTP/1.1 414",
            b"HTTP/1.1 431",
            b"HTTP/1.1 405",
            b"",
        }
        assert (await gateway.admin("GET", "/livez")).status_code == 200


@pytest.mark.parametrize("first", [b"", ALIVE[:20]])
async def test_those_that_say_nothing_or_half_of_it_are_let_go(
    tmp_path: Path, first: bytes
) -> None:
    settings = {"client_head_timeout_s": 0.2}
    async with ScriptedUpstream() as web, gateway_of(web, tmp_path, **settings) as gateway:
        async with RawClient(gateway.admin_port) as client:
            await client.send(first)
            said = await client.read_until_closed()

    assert said[:13] == (b"HTTP/1.1 408 " if first else b"")


@pytest.mark.parametrize("first", [ALIVE[:20], b"GET /livez HTTP/1.1\r\nHost: "])
async def test_half_heads_give_way_when_it_is_full(tmp_path: Path, first: bytes) -> None:
    async with (
        ScriptedUpstream() as web,
        gateway_of(web, tmp_path) as gateway,
        AsyncExitStack() as stack,
    ):
        for _ in range(MOST):
            client = await stack.enter_async_context(RawClient(gateway.admin_port))
            await client.send(first)
        for _ in range(3):
            assert (await gateway.admin("GET", "/livez")).status_code == 200


async def test_idle_ones_give_way_when_it_is_full(tmp_path: Path) -> None:
    """Those are most likely gone, and a health check must get in."""
    async with (
        ScriptedUpstream() as web,
        gateway_of(web, tmp_path, max_connections=1) as gateway,
        RawClient(gateway.port) as only_client,
        AsyncExitStack() as stack,
    ):
        await only_client.send(ask())
        await only_client.read_response()
        for _ in range(MOST):
            idle = await stack.enter_async_context(RawClient(gateway.admin_port))
            await idle.send(ALIVE)
            assert (await idle.read_response()).status == 200
        for _ in range(MOST + 3):
            assert (await gateway.admin("GET", "/livez")).status_code == 200


@pytest.mark.slow
async def test_a_hundred_that_pipeline_and_do_not_read_cost_little_and_stop_nobody(
    tmp_path: Path,
) -> None:
    """Answers that nobody takes are not made: 989 MiB of them were, before."""
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path) as gateway,
        AsyncExitStack() as stack,
    ):
        await gateway.ask_admin("/health")
        before_bytes = rss_bytes(gateway.pid)
        for _ in range(100):
            client = RawClient(gateway.admin_port, receive_buffer_bytes=4096)
            await stack.enter_async_context(client)
            with contextlib.suppress(ConnectionError):
                await client.send(HEALTH * 2000)
        for path in ("/livez", "/readyz", "/health"):
            answer = await gateway.ask_admin(path)
            assert answer.status_code == 200, (answer.text, gateway.said)

        assert rss_bytes(gateway.pid) - before_bytes < 48 * MIB
        async with RawClient(gateway.port) as other:
            await other.send(ask())
            assert (await other.read_response()).status == 200
