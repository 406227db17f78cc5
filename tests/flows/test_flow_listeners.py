"""Listeners beside the plain one: sending clients on to TLS, and the PROXY protocol in front."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import struct
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, fast_only, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.scenes import hold
from tests.fakes.tls import Authority, SecuredClient
from tests.fakes.upstream import ScriptedUpstream

CLIENT = "203.0.113.7"
V1 = f"PROXY TCP4 {CLIENT} 127.0.0.1 51000 443\r\n".encode()
V1_UNKNOWN = b"PROXY UNKNOWN\r\n"
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
V2 = (
    _V2_START
    + struct.pack("!BBH", 0x21, 0x11, 12)
    + socket.inet_aton(CLIENT)
    + socket.inet_aton("127.0.0.1")
    + struct.pack("!HH", 51000, 443)
)
V2_LOCAL = _V2_START + struct.pack("!BBH", 0x20, 0, 0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make the authority that clients trust."""
    return Authority(tmp_path / "certificates")


def over_tls(authority: Authority) -> dict[str, object]:
    """Give the settings of a listener for TLS."""
    pair = authority.pair("localhost")
    return {"tls_bind": "127.0.0.1:0", "tls_cert": [pair.cert], "tls_key": [pair.key]}


# --- Sending clients on to TLS -------------------------------------------------------------------


@fast_only
@pytest.mark.parametrize(
    ("line", "host", "place"),
    [
        ("GET /a%2Fb?c=d&e", "shop.example", "https://shop.example:{port}/a%2Fb?c=d&e"),
        ("POST /", "shop.example:8080", "https://shop.example:{port}/"),
        ("GET //evil.example/../x", "[::1]:80", "https://[::1]:{port}//evil.example/../x"),
        ("GET /", "[2001:db8::1]", "https://[2001:db8::1]:{port}/"),
        ("DELETE http://other.example:80/x", "a.b", "https://other.example:{port}/x"),
    ],
    ids=["path and query", "a port", "address and odd path", "address", "absolute"],
)
async def test_a_plain_request_is_sent_on_to_the_same_place_over_tls(
    serve: Serve, authority: Authority, line: str, host: str, place: str
) -> None:
    async with (
        ScriptedUpstream() as web,
        serve(routes_to(web), http_redirect="on", **over_tls(authority)) as gateway,
        RawClient(gateway.port) as client,
    ):
        for _ in range(2):
            await client.send(f"{line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = await client.read_response()

            assert (308, b"") == (answer.status, answer.body)
            assert [place.format(port=gateway.tls_port).encode()] == answer.values(b"location")

    assert [] == web.requests


@fast_only
async def test_the_port_of_the_place_is_the_one_that_clients_see(
    serve: Serve, authority: Authority
) -> None:
    async with (
        ScriptedUpstream() as web,
        serve(routes_to(web), http_redirect="443", **over_tls(authority)) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask("/a"))
        answer = await client.read_response()

    assert [b"https://shop.example/a"] == answer.values(b"location")


@fast_only
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a.example/evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
    ids=["a path in Host", "a user in Host", "two of them", "none"],
)
async def test_a_request_without_one_clear_host_is_sent_nowhere(
    serve: Serve, authority: Authority, request_bytes: bytes
) -> None:
    async with (
        ScriptedUpstream() as web,
        serve(routes_to(web), http_redirect="on", **over_tls(authority)) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(request_bytes)
        answer = await client.read_response()

    assert (400, []) == (answer.status, answer.values(b"location"))


# --- The PROXY protocol --------------------------------------------------------------------------


async def told_of(gateway: RunningGateway, web: ScriptedUpstream, first: bytes) -> list[bytes]:
    """Send a request behind these bytes; tell which client the instance is told of."""
    forged = ("X-Forwarded-For", "198.51.100.1")
    async with RawClient(gateway.port) as client:
        await client.send(first + ask("/", "GET", forged))
        assert 200 == (await client.read_response()).status
    return web.requests[-1].values(b"x-forwarded-for")


PROXIED = {"proxy_protocol": "on", "trusted_proxies": "127.0.0.0/8"}


@fast_only
@pytest.mark.parametrize(
    ("first", "client"),
    [(V1, CLIENT), (V2, CLIENT), (V1_UNKNOWN, "127.0.0.1"), (V2_LOCAL, "127.0.0.1")],
    ids=["version 1", "version 2", "unknown", "local"],
)
async def test_the_client_is_the_one_that_a_trusted_proxy_names(
    serve: Serve, first: bytes, client: str
) -> None:
    """What such a client says of others is not believed, whoever passes its bytes on."""
    async with ScriptedUpstream() as web, serve(routes_to(web), **PROXIED) as gateway:
        assert [client.encode()] == await told_of(gateway, web, first)


@fast_only
async def test_a_proxy_that_is_not_trusted_cannot_name_anybody(serve: Serve) -> None:
    settings = {**PROXIED, "trusted_proxies": "192.0.2.0/24"}
    async with ScriptedUpstream() as web, serve(routes_to(web), **settings) as gateway:
        assert [b"127.0.0.1"] == await told_of(gateway, web, V1)


@fast_only
async def test_a_connection_without_it_is_closed_without_an_answer(serve: Serve) -> None:
    async with ScriptedUpstream() as web, serve(routes_to(web), **PROXIED) as gateway:
        for first in (ask(), b"PROXY TCP4 1.2.3.4\r\n" + ask(), V2[:12] + b"\x42" + V2[13:]):
            async with RawClient(gateway.port) as client:
                await client.send(first)
                with contextlib.suppress(ConnectionResetError):  # what it had sent was never read
                    assert b"" == await client.read_until_closed()
        async with RawClient(gateway.port) as client:
            client.half_close()
            await client.expect_closed()

    assert [] == web.requests


@fast_only
async def test_it_may_come_byte_by_byte_and_the_request_too(serve: Serve) -> None:
    async with (
        ScriptedUpstream() as web,
        serve(routes_to(web), **PROXIED) as gateway,
        RawClient(gateway.port) as client,
    ):
        raw = V2 + ask()
        for start in range(len(raw)):
            await client.send(raw[start : start + 1])
            await asyncio.sleep(0)
        assert 200 == (await client.read_response()).status

    assert [CLIENT.encode()] == web.requests[0].values(b"x-forwarded-for")


@fast_only
@pytest.mark.parametrize("first", [V1, V2], ids=["version 1", "version 2"])
async def test_it_works_in_front_of_tls(serve: Serve, authority: Authority, first: bytes) -> None:
    async with (
        ScriptedUpstream() as web,
        serve(routes_to(web), **PROXIED, **over_tls(authority)) as gateway,
        SecuredClient(gateway.tls_port) as client,
    ):
        await client.send(first)
        await client.secure(authority.client_context())
        await client.send(ask())
        assert 200 == (await client.read_response()).status

    assert [CLIENT.encode()] == web.requests[0].values(b"x-forwarded-for")
    assert [b"https"] == web.requests[0].values(b"x-forwarded-proto")


# --- The program ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_program_serves_both_listeners_and_drains_both(
    tmp_path: Path, authority: Authority
) -> None:
    pair = authority.pair("localhost")
    release = asyncio.Event()
    async with ScriptedUpstream() as web:
        web.on_head(hold(release))
        run = GatewayRun(
            routes_to(web),
            tmp_path / "run",
            tls_bind="127.0.0.1:0",
            tls_cert=str(pair.cert),
            tls_key=str(pair.key),
            http_redirect="on",
            access_log="on",
        )
        async with run, SecuredClient(run.tls_port) as client, RawClient(run.port) as plain:
            await plain.send(ask("/old"))
            moved = await plain.read_response()
            await client.secure(authority.client_context())
            await client.send(ask("/slow"))
            await web.wait_until(lambda: len(web.requests) == 1)
            run.signal(signal.SIGTERM)
            await run.wait_for("draining")
            release.set()
            answer = await client.read_response()
            code = await run.ended()

    place = f"https://shop.example:{run.tls_port}/old".encode()
    assert (308, [place]) == (moved.status, moved.values(b"location"))
    assert (200, b"ok", 0) == (answer.status, answer.body, code)
    lines = {one["path"]: one for one in run.requests}
    assert (308, "GET") == (lines["/old"]["status"], lines["/old"]["method"])
    assert "failure" not in lines["/old"]
    assert 200 == lines["/slow"]["status"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bind", "redirect", "warns"),
    [("127.0.0.1:0", "off", True), ("127.0.0.1:0", "on", False), ("off", "off", False)],
)
async def test_a_plain_listener_beside_one_that_wants_certificates_is_warned_of(
    tmp_path: Path, authority: Authority, bind: str, redirect: str, *, warns: bool
) -> None:
    pair = authority.pair("localhost")
    async with ScriptedUpstream() as web:
        run = GatewayRun(
            routes_to(web),
            tmp_path / "run",
            bind=bind,
            tls_bind="127.0.0.1:0",
            tls_cert=str(pair.cert),
            tls_key=str(pair.key),
            tls_client_auth="required",
            tls_client_ca=str(authority.ca_file),
            http_redirect=redirect,
        )
        async with run:
            listening = {one["site"] for one in run.logged("listening")}

    assert listening == {"admin", "tls"} | ({"main"} if bind != "off" else set())
    assert len(run.logged("plain_listener_needs_no_certificate")) == warns


@pytest.mark.slow
async def test_one_listener_takes_clients_over_ipv4_and_ipv6(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path / "run", bind="[::]:0") as run,
    ):
        for host in ("127.0.0.1", "::1"):
            async with RawClient(run.port, host=host) as client:
                await client.send(ask())
                assert (await client.read_response()).status == 200

    assert [one.values(b"x-forwarded-for") for one in web.requests] == [[b"127.0.0.1"], [b"::1"]]


def hello_for(name: bytes) -> bytes:
    """Write a ClientHello that asks for a name of just so many bytes, whatever they are."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stands_for_it = "a" * len(name)
    client = context.wrap_bio(incoming, outgoing, server_hostname=stands_for_it)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read().replace(stands_for_it.encode(), name)


@pytest.mark.slow
async def test_a_client_cannot_fill_the_log_with_tracebacks(
    tmp_path: Path, authority: Authority
) -> None:
    """Python's ssl prints one for each name that is not ASCII."""
    pair = authority.pair("localhost")
    settings = {"tls_cert": str(pair.cert), "tls_key": str(pair.key), "tls_bind": "127.0.0.1:0"}
    settings["max_connections"] = "100"  # for which there are open files enough anywhere
    async with GatewayRun("{version: 1, routes: []}", tmp_path / "run", **settings) as run:
        for first in (hello_for(b"\xff\xfe.example"), ask(), b"\x16\x03\x01\x00\x05\0\0\0\0\0"):
            async with RawClient(run.tls_port) as client:
                await client.send(first)
                await client.read_until_closed()
        run.signal(signal.SIGTERM)
        await run.ended()

    assert "Traceback" not in run.said
    assert {"info"} == {event["level"] for event in run.events}


@pytest.mark.slow
async def test_the_program_takes_new_certificates_while_it_runs(
    tmp_path: Path, authority: Authority
) -> None:
    pair = authority.pair("before.example")
    settings = {"tls_cert": str(pair.cert), "tls_key": str(pair.key), "tls_bind": "127.0.0.1:0"}
    async with ScriptedUpstream() as web:
        async with GatewayRun(routes_to(web), tmp_path / "run", **settings) as run:
            authority.pair("after.example")
            await run.wait_for("certificate_loaded")
            async with SecuredClient(run.tls_port) as client:
                await client.secure(authority.client_context(), "after.example")
                assert ["after.example"] == client.names


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"proxy_protocol": "on"},
            "GATEWAY_PROXY_PROTOCOL needs GATEWAY_TRUSTED_PROXIES, or anybody could be anybody",
        ),
        (
            {"http_redirect": "on"},
            "GATEWAY_HTTP_REDIRECT needs GATEWAY_TLS_BIND: there is nowhere to go",
        ),
        (
            {"bind": "off"},
            "GATEWAY_BIND=off needs GATEWAY_TLS_BIND: there is nowhere to come in",
        ),
    ],
    ids=["a proxy of nobody", "a redirect to nowhere", "no listener"],
)
async def test_settings_that_contradict_each_other_stop_the_start(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    run = GatewayRun("{}", tmp_path / "run", **variables)
    run.launch()
    code = await run.ended()

    assert (2, said) == (code, run.said.strip())
