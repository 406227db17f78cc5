"""What went wrong elsewhere and must not here, where it takes a whole gateway to see it."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import Serve, ask, fast_only, routes_file, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.scenes import echo, head, play, reply, respond, stall
from tests.fakes.upstream import ScriptedUpstream

SWITCH = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
HTTP_2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("first", [CLIENT_HELLO, HTTP_2_PREFACE], ids=["TLS", "HTTP/2"])
async def test_a_client_that_speaks_another_protocol_is_told_so_in_ours(
    serve: Serve, first: bytes
) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(first)
            answer = await client.read_response()
            await client.expect_closed()

        assert (answer.status, web.connections) == (400, [])


async def test_paths_that_differ_in_case_are_different_paths(serve: Serve) -> None:
    """Or /ADMIN would get past what is said of /admin (CVE-2026-27587)."""
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/a"})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            statuses = []
            for path in ("/a/x", "/A/x", "/%61/x", "/%41/x"):
                await client.send(ask(path))
                statuses.append((await client.read_response()).status)

    assert statuses == [200, 404, 200, 404]


async def test_what_an_instance_tells_other_proxies_to_do_is_only_a_field(serve: Serve) -> None:
    orders = [(b"x-accel-redirect", b"/internal"), (b"x-sendfile", b"/etc/passwd")]
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=orders))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

        assert [field for field in answer.headers if field in orders] == orders
        assert answer.body == b"ok"
        assert len(web.requests) == 1


async def test_authentication_is_between_the_client_and_the_instance(serve: Serve) -> None:
    """RFC 9110 §11: a gateway neither answers a challenge nor takes one away."""
    challenges = [
        (b"www-authenticate", b"Basic realm=a, Bearer"),
        (b"www-authenticate", b"Negotiate"),
        (b"proxy-authenticate", b"Basic"),
    ]
    async with ScriptedUpstream() as web:
        web.on_request(respond(401, headers=challenges))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            fields = (("Authorization", "Basic eA=="), ("Proxy-Authorization", "Basic eQ=="))
            await client.send(ask("/", "GET", *fields))
            answer = await client.read_response()

        assert answer.status == 401
        assert [field for field in answer.headers if field in challenges] == challenges
        assert web.requests[0].values(b"authorization") == [b"Basic eA=="]
        assert web.requests[0].values(b"proxy-authorization") == [b"Basic eQ=="]


async def test_one_service_cannot_take_the_connections_of_another(serve: Serve) -> None:
    """A pool for all of them runs dry when one stalls."""
    async with ScriptedUpstream() as slow, ScriptedUpstream() as quick, AsyncExitStack() as stack:
        slow.on_head(stall())
        routes = routes_file(
            {"slow": {"servers": [slow.url]}, "quick": {"servers": [quick.url]}},
            {"match": {"path_prefix": "/slow"}, "service": "slow"},
            {"match": {"path_prefix": "/quick"}, "service": "quick"},
        )
        async with serve(routes) as gateway:
            for _ in range(200):
                client = await stack.enter_async_context(RawClient(gateway.port))
                upload = ask("/slow", "POST", ("Content-Length", "1000"))
                await client.send(upload + b"some")
            await slow.wait_until(lambda: len(slow.requests) == 200)
            async with RawClient(gateway.port) as client:
                await client.send(ask("/quick"))
                answer = await client.read_response()
            await stack.aclose()

    assert answer.status == 200


@fast_only
async def test_an_odd_offer_of_a_subprotocol_breaks_nothing(serve: Serve) -> None:
    """Elsewhere bytes that are not ASCII ended the process."""
    async with ScriptedUpstream() as web:
        web.on_request(play(reply(SWITCH), echo()))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            offer = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
            await client.send(ask("/", "GET", *offer, ("Sec-WebSocket-Protocol", "caf\xe9")))
            answer = await client.read_response()

        assert answer.status == 101
        assert web.requests[0].values(b"sec-websocket-protocol") == [b"caf\xe9"]


@pytest.mark.slow
async def test_without_file_descriptors_it_lives_and_recovers(tmp_path: Path) -> None:
    """Too many clients for the process: none end it, and no instance is to blame for them."""
    async with ScriptedUpstream() as web, GatewayRun(routes_to(web), tmp_path) as gateway:
        few = (64, 64)
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, few)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(RawClient(gateway.port, timeout_s=5))
                for _ in range(200)
            ]
            outcomes = await asyncio.gather(*(try_to_ask(client) for client in clients))
        is_running = gateway.is_running
        afterwards = None
        while afterwards != 200:  # it notices by and by that the others have left
            async with RawClient(gateway.port, timeout_s=5) as client:
                afterwards = await try_to_ask(client)

        assert is_running
        assert set(outcomes) <= {200, 503, None}
        assert gateway.logged("breaker_opened") == []


async def try_to_ask(client: RawClient) -> int | None:
    """Ask; tell the status, None if no answer came."""
    try:
        await client.send(ask())
        return (await client.read_response()).status
    except (OSError, TimeoutError, BrokenOffError):
        return None
