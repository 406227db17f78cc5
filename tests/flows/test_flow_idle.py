"""Idle connections that the instance closes: no request may be lost to that race."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from gateway.proxy.pool import TRUSTED_IDLE_S
from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.instance import Ledger
from tests.fakes.peer import Peer
from tests.fakes.scenes import head, reply
from tests.fakes.upstream import ScriptedUpstream

IDLE_S = 1.2  # 5 s in uvicorn
POSTS = 4


async def closes_after_a_moment(peer: Peer) -> None:
    """Answer, and close the idle connection a little later, as servers do."""
    await peer.send(head(200, [(b"Content-Length", b"0")]))
    await asyncio.sleep(0.03)
    peer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_requests_that_come_just_when_a_connection_is_closed_are_all_answered(
    serve: Serve, method: str
) -> None:
    """A POST is not sent again once it was sent, so it must not meet a closing connection often."""
    async with ScriptedUpstream() as web, serve(routes_to(web)) as gateway:
        web.on_request(closes_after_a_moment)
        statuses = await statuses_of(gateway, method, pauses_s=[0.045] * 20)

    assert statuses == [200] * 20
    assert len(web.requests) == 20


async def test_an_instance_that_says_so_is_asked_over_fresh_connections(serve: Serve) -> None:
    answer = head(200, [(b"Content-Length", b"0"), (b"Keep-Alive", b"timeout=1")])
    async with ScriptedUpstream() as web, serve(routes_to(web)) as gateway:
        web.on_request(reply(answer))
        statuses = await statuses_of(gateway, "POST", pauses_s=[0.9, 0.0])

    assert statuses == [200, 200]
    assert len(web.connections) == 2


async def dies_when_it_is_used_again(peer: Peer) -> None:
    """Break off at the second request, as if the connection had been closed before it came."""
    if len(peer.requests) > 1:
        peer.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "size_bytes", "heads"),
    [("PUT", 1024, 3), ("PUT", 65 * 1024, 2), ("POST", 1024, 2)],
    ids=["short PUT", "long PUT", "POST"],
)
async def test_what_cannot_be_sent_again_with_its_body_gets_no_old_connection(
    serve: Serve, method: str, size_bytes: int, heads: int
) -> None:
    """A PUT may be repeated, but not if its body is longer than what is kept of it."""
    request = ask("/", method, body=bytes(size_bytes))
    async with ScriptedUpstream() as web, serve(routes_to(web)) as gateway:
        web.on_head(dies_when_it_is_used_again)
        async with RawClient(gateway.port) as client:
            await client.send(request)
            first = await client.read_response()
            await asyncio.sleep(TRUSTED_IDLE_S + 0.1)
            await client.send(request)
            second = await client.read_response()

    assert (first.status, second.status) == (200, 200)
    assert len(web.requests) == heads


@pytest.mark.soak
async def test_posts_at_the_moment_when_idle_connections_are_closed_are_answered_and_sent_once(
    tmp_path: Path,
) -> None:
    """The instance does not say for how long it keeps them, as uvicorn does not."""
    async with (
        Ledger("one", tmp_path, idle_s=IDLE_S) as ledger,
        GatewayRun(routes_to(ledger.port), tmp_path / "gateway") as gateway,
        asyncio.TaskGroup() as tasks,
    ):
        around_it = [IDLE_S + 0.001 * step for step in range(-20, 20)]
        lanes = [
            tasks.create_task(posts(gateway.port, lane, pause_s))
            for lane, pause_s in enumerate(around_it)
        ]
        statuses = Counter([status for lane in lanes for status in await lane])
        sent = Counter(ledger.lines())

    assert statuses == {200: len(sent)}
    assert set(sent.values()) == {1}


async def posts(port: int, lane: int, pause_s: float) -> list[int]:
    """Send a few POSTs over one connection, each with a path of its own, with pauses in between."""
    statuses = []
    async with RawClient(port) as client:
        for number in range(POSTS):
            await client.send(ask(f"/{lane}/{number}", "POST", body=b"x"))
            statuses.append((await client.read_response()).status)
            await asyncio.sleep(pause_s)
    return statuses


async def statuses_of(gateway: RunningGateway, method: str, pauses_s: list[float]) -> list[int]:
    """Ask over one connection, with a pause after each answer."""
    statuses = []
    async with RawClient(gateway.port) as client:
        for pause_s in pauses_s:
            await client.send(ask("/", method, body=b"x" if method == "POST" else None))
            statuses.append((await client.read_response(method.encode())).status)
            await asyncio.sleep(pause_s)
    return statuses
