"""Idle connections that the instance closes: no request may be lost to that race."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.peer import Peer
from tests.fakes.scenes import head, reply
from tests.fakes.upstream import ScriptedUpstream


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


async def statuses_of(gateway: RunningGateway, method: str, pauses_s: list[float]) -> list[int]:
    """Ask over one connection, with a pause after each answer."""
    statuses = []
    async with RawClient(gateway.port) as client:
        for pause_s in pauses_s:
            await client.send(ask("/", method, body=b"x" if method == "POST" else None))
            statuses.append((await client.read_response(method.encode())).status)
            await asyncio.sleep(pause_s)
    return statuses
