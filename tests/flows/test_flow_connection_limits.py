"""Connections that say nothing yet: on each listener they count, and they have little time."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import RunningGateway, ask, routes_to
from tests.fakes.tls import Authority, SecuredClient
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

LIMIT = 20
LONG_S = 3600.0  # what is given so long is left alone for as long as a test takes


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make the authority that clients trust."""
    return Authority(tmp_path / "certificates")


def gateway_of(
    web: ScriptedUpstream, authority: Authority, folder: Path, **settings: object
) -> RunningGateway:
    pair = authority.pair("localhost")
    return RunningGateway(
        routes_to(web),
        face="fast",
        folder=folder / "gateway",
        tls_bind="127.0.0.1:0",
        tls_cert=[pair.cert],
        tls_key=[pair.key],
        max_connections=LIMIT,
        **settings,
    )


@pytest.mark.parametrize("silent_on", ["plain", "tls", "proxied", "proxied tls"])
async def test_silent_connections_count_and_those_over_the_limit_are_closed(
    authority: Authority, tmp_path: Path, silent_on: str
) -> None:
    """In a handshake, before a PROXY header, or before a request: an open socket is one."""
    proxied = {"proxy_protocol": "on", "trusted_proxies": "127.0.0.0/8"}
    settings: dict[str, object] = dict(proxied) if "proxied" in silent_on else {}
    settings["client_head_timeout_s"] = LONG_S
    async with (
        ScriptedUpstream() as web,
        gateway_of(web, authority, tmp_path, **settings) as gateway,
        AsyncExitStack() as stack,
    ):
        places = gateway.gateway.fast_face.places
        port = gateway.tls_port if "tls" in silent_on else gateway.port
        held = [await stack.enter_async_context(RawClient(port)) for _ in range(LIMIT)]
        await wait_until(lambda: places.count == LIMIT)

        for other in (gateway.tls_port, gateway.port):
            async with RawClient(other) as client:
                is_told = silent_on in {"plain", "tls"} and other == gateway.port
                if is_told:
                    assert (await client.read_response()).status == 503
                await client.expect_closed()
        await wait_until(lambda: repr(places) == f"<Places {LIMIT} taken, 0 refused>")
        assert len(gateway.logged("connections_refused")) == 1

        held[0].reset()
        await wait_until(lambda: places.count == LIMIT - 1)
        async with RawClient(gateway.port) as client:
            first = b"PROXY UNKNOWN\r\n" if "proxied" in silent_on else b""
            await client.send(first + ask())
            assert (await client.read_response()).status == 200


@pytest.mark.parametrize("silent_on", ["plain", "tls", "proxied", "proxied tls"])
async def test_a_silent_connection_has_the_time_of_a_head(
    authority: Authority, tmp_path: Path, silent_on: str
) -> None:
    """And not that of one that is kept for its next request, which is over a minute."""
    settings: dict[str, object] = {"client_head_timeout_s": 0.2}
    if "proxied" in silent_on:
        settings |= {"proxy_protocol": "on", "trusted_proxies": "127.0.0.0/8"}
    async with (
        ScriptedUpstream() as web,
        gateway_of(web, authority, tmp_path, **settings) as gateway,
    ):
        port = gateway.tls_port if "tls" in silent_on else gateway.port
        async with RawClient(port) as client:
            await client.expect_closed()
        await wait_until(lambda: gateway.gateway.fast_face.places.count == 0)


@pytest.mark.parametrize("idle_on", ["plain", "tls"])
async def test_idle_clients_that_fill_all_places_keep_nobody_out(
    authority: Authority, tmp_path: Path, idle_on: str
) -> None:
    """Fifty that had been served once and stayed took all there was, for over a minute."""
    async with (
        ScriptedUpstream() as web,
        gateway_of(web, authority, tmp_path, client_head_timeout_s=LONG_S) as gateway,
        AsyncExitStack() as stack,
    ):
        port = gateway.tls_port if idle_on == "tls" else gateway.port
        places = gateway.gateway.fast_face.places
        idle: list[RawClient | SecuredClient] = []
        for _ in range(LIMIT):
            client = SecuredClient(port) if idle_on == "tls" else RawClient(port)
            await stack.enter_async_context(client)
            if isinstance(client, SecuredClient):
                await client.secure(authority.client_context())
            await client.send(ask())
            assert (await client.read_response()).status == 200
            idle.append(client)
        assert places.count == LIMIT
        for _ in range(3):
            async with RawClient(gateway.port) as new:
                await new.send(ask())
                assert (await new.read_response()).status == 200
        await idle[0].expect_closed()
        await idle[-1].send(ask())
        assert (await idle[-1].read_response()).status == 200
        assert gateway.logged("connections_refused") == []


@pytest.mark.parametrize("silent_on", ["plain", "tls", "proxied", "proxied tls"])
async def test_silent_ones_give_way_when_they_have_had_a_moment(
    authority: Authority, tmp_path: Path, silent_on: str
) -> None:
    """In a handshake, before a PROXY header, or before a request; a new one asks until it is in."""
    settings: dict[str, object] = {"client_head_timeout_s": LONG_S}
    first = b""
    if "proxied" in silent_on:
        settings |= {"proxy_protocol": "on", "trusted_proxies": "127.0.0.0/8"}
        first = b"PROXY UNKNOWN\r\n"
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        gateway = gateway_of(web, authority, tmp_path, **settings)
        face = gateway.gateway.fast_face
        face.options = replace(face.options, grace_s=0.2)
        await stack.enter_async_context(gateway)
        port = gateway.tls_port if "tls" in silent_on else gateway.port
        clients = [await stack.enter_async_context(RawClient(port)) for _ in range(LIMIT)]

        assert await served_at_last(gateway.port, first + ask())
        await clients[0].expect_closed()


async def served_at_last(port: int, request: bytes) -> bool:
    """Ask over one new connection after the other until one is answered."""
    while True:
        async with RawClient(port) as client:
            try:
                await client.send(request)
                if (await client.read_response()).status == 200:
                    return True
            except (BrokenOffError, ConnectionError):
                continue
