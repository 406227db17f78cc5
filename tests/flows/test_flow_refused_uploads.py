"""Instances that refuse by closing: what the client gets, and that no other client notices."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_file, routes_to
from tests.fakes.instance import Instance
from tests.fakes.peer import Peer
from tests.fakes.scenes import close, respond
from tests.fakes.tls import Authority
from tests.fakes.upstream import ScriptedUpstream

BODY = bytes(1_000_000)
HEAD = ask("/", "POST", ("Content-Length", str(len(BODY))))
TOO_LARGE = ("X-Large", "x" * 9000)


@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "TLS"])
async def test_each_client_gets_the_response_that_refuses_its_upload(
    serve: Serve, tmp_path: Path, *, is_secured: bool
) -> None:
    """The instance's answer is read before the write is reported that fails after it."""
    authority = Authority(tmp_path / "certificates")
    pair = authority.pair("127.0.0.1")
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    async with Instance(
        "refuser", both if is_secured else "plain", program="tests.fakes.refuser"
    ) as web:
        url = f"{'https' if is_secured else 'http'}://127.0.0.1:{web.port}"
        service = {"servers": [url], "tls": {"ca_file": str(authority.ca_file)}}
        routes = routes_file({"web": service}, {"match": {"path_prefix": "/"}, "service": "web"})
        async with serve(routes) as gateway:
            seen = [await upload(gateway.port) for _ in range(40)]

    assert seen == [(413, b"too large")] * 40


async def upload(port: int) -> tuple[int, bytes]:
    """Send a body of 1 MB and read the response, whether or not all of it was taken."""
    async with RawClient(port) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(HEAD + BODY)
        answer = await client.read_response(b"POST")
        return answer.status, answer.body


async def refuse_what_is_large(peer: Peer) -> None:
    """Answer what is small, and close without a word on what is not."""
    is_large = bool(peer.requests[-1].values(b"x-large"))
    await (close() if is_large else respond())(peer)


async def answers(
    gateway: RunningGateway, *requests: bytes, source: str = "127.0.0.1"
) -> list[int]:
    """Send each on a connection of its own, one after the other; tell what was answered."""
    seen = []
    for request in requests:
        async with RawClient(gateway.port, source=source) as client:
            await client.send(request)
            try:
                seen.append((await client.read_response()).status)
            except BrokenOffError:
                seen.append(0)
    return seen


async def test_what_an_instance_closes_on_shuts_it_out_for_nobody(serve: Serve) -> None:
    """Heads that are too large for it, and uploads that it refuses, both from many clients."""
    async with ScriptedUpstream() as web:
        web.on_request(refuse_what_is_large)
        async with serve(routes_to(web)) as gateway:
            refused, others = [], []
            for number in range(2, 8):
                source = f"127.0.0.{number}"
                refused += await answers(gateway, *[ask("/", "GET", TOO_LARGE)] * 5, source=source)
                others += await answers(gateway, *[ask()] * 3)
            breaker = gateway.member(web).breaker

        assert refused == [502] * 30
        assert others == [200] * 18
        assert not breaker.is_shut
        assert gateway.logged("breaker_opened") == []


async def close_on_posts(peer: Peer) -> None:
    await (close() if peer.requests[-1].method == b"POST" else respond())(peer)


async def test_one_client_does_not_shut_out_an_instance_and_two_that_meet_the_same_do(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as sick, ScriptedUpstream() as well:
        sick.on_request(close_on_posts)
        service = {"retry": {"attempts": 1}, "circuit_breaker": {"window": "1h"}}
        async with serve(routes_to(sick, well, service=service)) as gateway:
            breaker = gateway.member(sick).breaker
            while not sick.requests:
                await answers(gateway, ask())
            alone = await answers(gateway, *[ask("/", "POST")] * 60, source="127.0.0.2")
            was_shut = breaker.is_shut
            await answers(gateway, *[ask("/", "POST")] * 60, source="127.0.0.3")
            opened = [one["why"] for one in gateway.logged("breaker_opened")]

        assert alone.count(502) > 5
        assert not was_shut
        assert opened == ["disconnected_early"]


async def test_the_only_client_shuts_out_an_instance_that_closes_while_another_serves(
    serve: Serve,
) -> None:
    """All requests may come from one address, and the instance may crash on each."""
    async with ScriptedUpstream() as sick, ScriptedUpstream() as well:
        sick.on_request(close())
        service = {"retry": {"attempts": 1}}
        async with serve(routes_to(sick, well, service=service)) as gateway:
            statuses = await answers(gateway, *[ask("/", "POST")] * 60)
            opened = [one["address"] for one in gateway.logged("breaker_opened")]

        assert opened == [sick.authority]
        assert set(statuses) == {200, 502}
        assert not gateway.member(well).breaker.is_shut
