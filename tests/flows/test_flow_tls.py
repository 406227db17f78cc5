"""TLS on both sides: who is verified, what is told of it, and what happens when it fails."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.breaker import BreakerState
from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, fast_only, routes_file, routes_to
from tests.fakes.scenes import app, head, play, reply, respond, stall
from tests.fakes.tls import Authority, Pair, SecuredClient, TlsInstance
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Make the authority that the gateway's side of a story trusts."""
    return Authority(tmp_path / "certificates")


@pytest.fixture
def secured(serve: Serve, authority: Authority) -> Callable[..., RunningGateway]:
    """Make gateways with a listener for TLS, whose certificate is for localhost."""

    def make(routes: str, *pairs: Pair, **settings: object) -> RunningGateway:
        shown = pairs or (authority.pair("localhost", "127.0.0.1"),)
        return serve(
            routes,
            tls_bind="127.0.0.1:0",
            tls_cert=[pair.cert for pair in shown],
            tls_key=[pair.key for pair in shown],
            **settings,
        )

    return make


def routes_over_tls(*urls: str, **tls: object) -> str:
    """Write routes to instances of one service, with what its `tls` says."""
    services = {"web": {"servers": list(urls), "tls": tls, "retry": {"attempts": len(urls)}}}
    return routes_file(services, {"match": {"path_prefix": "/"}, "service": "web"})


async def test_what_a_client_sent_through_a_tunnel_before_it_ended_arrives_whole(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    """Thousands of small frames are passed on in shares, and some wait when the end comes."""
    switch = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
    frames = b"\x82\x81\0\0\0\0a" * 20_000
    async with ScriptedUpstream() as web, secured(routes_to(web)) as gateway:
        web.on_request(play(reply(switch), stall()))
        async with SecuredClient(gateway.tls_port) as client:
            await client.secure(authority.client_context())
            await client.send(ask("/", "GET", ("Connection", "Upgrade"), ("Upgrade", "websocket")))
            await client.read_response()
            await client.send(frames)
            client.end()
            await web.wait_until(lambda: not web.connections[0].is_open())

    assert web.connections[0].received.endswith(b"\r\n\r\n" + frames)


# --- Instances -----------------------------------------------------------------------------------


async def test_an_instance_over_tls_is_verified_by_its_address_and_answers(
    serve: Serve, authority: Authority
) -> None:
    async with TlsInstance(authority.instance_context("127.0.0.1")) as web:
        async with (
            serve(routes_over_tls(web.url, ca_file=str(authority.ca_file))) as gateway,
            RawClient(gateway.port) as client,
        ):
            for _ in range(3):
                await client.send(ask("/a"))
                answer = await client.read_response()
                assert (200, b"ok") == (answer.status, answer.body)

    assert [1, 1, 1] == [one.connection for one in web.heard]
    assert web.heard[0].server_name is None  # an address is never sent as a name (RFC 6066 §3)


async def test_the_name_of_the_service_is_asked_for_and_verified(
    serve: Serve, authority: Authority
) -> None:
    async with TlsInstance(authority.instance_context("web.internal")) as web:
        routes = routes_over_tls(
            web.url, ca_file=str(authority.ca_file), server_name="Web.internal"
        )
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            assert 200 == (await client.read_response()).status

    assert "web.internal" == web.heard[0].server_name


async def test_an_instance_with_another_name_gets_nothing_and_the_next_one_answers(
    serve: Serve, authority: Authority
) -> None:
    """Nothing was sent, so even a POST goes on; the answer names the reason when nobody is left."""
    async with (
        TlsInstance(authority.instance_context("127.0.0.1")) as right,
        TlsInstance(authority.instance_context("elsewhere.internal")) as wrong,
    ):
        routes = routes_over_tls(wrong.url, right.url, ca_file=str(authority.ca_file))
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for _ in range(40):  # chance never leaves one out so often
                await client.send(ask(method="POST", body=b"once"))
                assert 200 == (await client.read_response()).status
            fleet = gateway.gateway.engine.fleets["web"]
            (member,) = [one for one in fleet.members.values() if one.instance.port == wrong.port]
            states = member.breaker.state(gateway.gateway.deadlines.now_s)

    assert [] == wrong.heard
    assert 40 == len(right.heard)
    assert BreakerState.OPEN is states


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        ({}, "unable to get local issuer certificate; name who signed it in tls.ca_file"),
        (
            {"server_name": "other.internal"},
            (
                "Hostname mismatch, certificate is not valid for 'other.internal'; "
                "tls.server_name is the name to verify"
            ),
        ),
    ],
    ids=["unknown authority", "other name"],
)
async def test_an_instance_that_cannot_be_verified_is_named_in_the_answer(
    serve: Serve, authority: Authority, tls: dict[str, str], reason: str
) -> None:
    ca_file = {"ca_file": str(authority.ca_file)} if tls else {}
    async with TlsInstance(authority.instance_context("127.0.0.1")) as web:
        routes = routes_over_tls(web.url, **tls, **ca_file)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    assert (502, [b"tls_failed"]) == (answer.status, answer.values(b"x-gateway-reason"))
    detail = f"127.0.0.1:{web.port}: its certificate is not accepted: {reason}"
    assert f'"detail": "{detail}"'.encode() in answer.body
    assert [] == web.heard


async def test_an_instance_that_does_not_speak_tls_is_a_failure_of_tls(
    serve: Serve, authority: Authority
) -> None:
    async with ScriptedUpstream() as plain:
        routes = routes_over_tls(f"https://{plain.authority}", ca_file=str(authority.ca_file))
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()
        plain.violations.clear()  # a ClientHello is no HTTP

    assert (502, [b"tls_failed"]) == (answer.status, answer.values(b"x-gateway-reason"))


async def test_skip_verify_takes_any_certificate_and_is_told_at_the_start(
    serve: Serve, authority: Authority
) -> None:
    async with TlsInstance(authority.instance_context("elsewhere.internal")) as web:
        async with (
            serve(routes_over_tls(web.url, skip_verify=True)) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            assert 200 == (await client.read_response()).status
            (warning,) = gateway.logged("certificates_not_verified")

    assert (["web"], "warning") == (warning["services"], warning["log_level"])


async def test_an_instance_that_asks_for_a_certificate_gets_ours(
    serve: Serve, authority: Authority
) -> None:
    own = authority.pair("gateway@example.com", file="gateway", common_name="the gateway")
    context = authority.instance_context("127.0.0.1", wants_clients=True)
    async with TlsInstance(context) as web:
        routes = routes_over_tls(
            web.url,
            ca_file=str(authority.ca_file),
            client_cert=str(own.cert),
            client_key=str(own.key),
        )
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            assert 200 == (await client.read_response()).status

    subject = dict(part[0] for part in web.heard[0].certificate["subject"])
    assert "the gateway" == subject["commonName"]


async def test_an_instance_that_misses_our_certificate_says_so_in_the_detail(
    serve: Serve, authority: Authority
) -> None:
    """In TLS 1.3 it says so after the handshake; whether it did anything nobody can know then."""
    context = authority.instance_context("127.0.0.1", wants_clients=True)

    def shake_hands(listener: socket.socket) -> None:
        """Tell the client why it is refused, which an event loop does not wait for."""
        sock, _ = listener.accept()
        with sock, pytest.raises(ssl.SSLError), context.wrap_socket(sock, server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        instance = asyncio.get_running_loop().run_in_executor(None, shake_hands, listener)
        async with (
            serve(routes_over_tls(url, ca_file=str(authority.ca_file))) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            answer = await client.read_response()
            await instance

    assert (502, [b"disconnected_early"]) == (answer.status, answer.values(b"x-gateway-reason"))
    assert b"ended the TLS session (it wants a client certificate) before" in answer.body


UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\nall of it?"


async def test_a_body_that_ends_with_its_tls_session_is_whole(
    serve: Serve, authority: Authority
) -> None:
    context = authority.instance_context("127.0.0.1")
    async with TlsInstance(context, answer=UNTIL_CLOSED, closes=True) as web:
        async with (
            serve(routes_over_tls(web.url, ca_file=str(authority.ca_file))) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            assert b"all of it?" == (await client.read_response()).body


async def test_a_body_whose_connection_ends_without_its_session_is_not_passed_off_as_whole(
    serve: Serve, authority: Authority
) -> None:
    """Anybody in between can end a TCP connection: that is the truncation attack."""
    context = authority.instance_context("127.0.0.1")
    async with TlsInstance(context, answer=UNTIL_CLOSED, cuts=True) as web:
        async with (
            serve(routes_over_tls(web.url, ca_file=str(authority.ca_file))) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            with pytest.raises(BrokenOffError):
                await client.read_response()


# --- Clients -------------------------------------------------------------------------------------


async def test_a_client_over_tls_is_answered_and_instances_are_told_https(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    async with (
        ScriptedUpstream() as web,
        secured(routes_to(web)) as gateway,
        SecuredClient(gateway.tls_port) as client,
    ):
        await client.secure(authority.client_context())
        for _ in range(2):
            await client.send(ask("/a"))
            assert b"ok" == (await client.read_response()).body

        assert ("TLSv1.3", "http/1.1") == (
            client.session.version(),
            client.session.selected_alpn_protocol(),
        )
        assert [b"https"] == web.requests[0].values(b"x-forwarded-proto")
        assert [] == web.requests[0].values(b"x-forwarded-client-cert")


async def test_tls_1_1_is_refused(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    context = authority.client_context()
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with (
        ScriptedUpstream() as web,
        secured(routes_to(web)) as gateway,
        SecuredClient(gateway.tls_port) as client,
    ):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.secure(context)


async def test_a_large_body_passes_both_ways(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    body = bytes(range(256)) * 8192

    async with (
        ScriptedUpstream() as web,
        secured(routes_to(web)) as gateway,
        SecuredClient(gateway.tls_port) as client,
    ):
        await client.secure(authority.client_context())
        web.on_request(app(lambda request: respond(body=bytes(request.body))))
        await client.send(ask(method="POST", body=body))
        answer = await client.read_response()

    assert body == bytes(web.requests[0].body)
    assert body == answer.body


@fast_only
async def test_a_refusal_reaches_a_client_that_still_sends(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    """TLS cannot end one direction alone; closing at once would destroy the answer on its way."""

    def send_on_before_reading(port: int) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock,
            authority.client_context().wrap_socket(sock, server_hostname="localhost") as client,
        ):
            client.sendall(ask(method="POST", body=b"x" * 400_000)[:100_000])
            select.select([client], [], [], 5)  # the answer is here, and nobody has read it yet
            for _ in range(3):
                client.sendall(b"x" * 100_000)
            return client.recv(4096)

    async with ScriptedUpstream() as web, secured(routes_to(web, max_body="1KiB")) as gateway:
        answer = await asyncio.to_thread(send_on_before_reading, gateway.tls_port)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer


async def test_plain_http_on_the_port_for_tls_is_closed_without_a_word(
    secured: Callable[..., RunningGateway],
) -> None:
    """Leaving the gateway also says that nobody made a traceback of it."""
    async with (
        ScriptedUpstream() as web,
        secured(routes_to(web)) as gateway,
        RawClient(gateway.tls_port) as client,
    ):
        await client.send(ask())
        assert b"HTTP/" not in await client.read_until_closed()
        assert [] == [one for one in gateway.events if one["log_level"] not in {"debug", "info"}]


async def test_a_client_that_leaves_in_the_handshake_is_nobodys_concern(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    async with ScriptedUpstream() as web, secured(routes_to(web)) as gateway:
        for leave in (RawClient.half_close, RawClient.reset):
            async with RawClient(gateway.tls_port) as client:
                await client.send(b"\x16\x03\x01\x02\x00")
                leave(client)
        async with SecuredClient(gateway.tls_port) as client:
            await client.secure(authority.client_context())
            await client.send(ask())
            assert 200 == (await client.read_response()).status
        assert [] == [one for one in gateway.events if one["log_level"] not in {"debug", "info"}]


async def test_each_client_sees_the_certificate_for_the_name_that_it_asks_for(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    pairs = [
        authority.pair("first.example", file="first"),
        authority.pair("*.second.example", file="second"),
        authority.pair("exact.second.example", file="exact"),
    ]
    asked = ["first.example", "a.second.example", "exact.second.example", "unknown.example"]
    seen: list[list[str]] = []
    async with ScriptedUpstream() as web, secured(routes_to(web), *pairs) as gateway:
        for name in asked:
            context = authority.client_context()
            context.check_hostname = False
            async with SecuredClient(gateway.tls_port) as client:
                await client.secure(context, name)
                seen.append(client.names)

    assert [
        ["first.example"],
        ["*.second.example"],
        ["exact.second.example"],
        ["first.example"],
    ] == seen


# --- Certificates of clients ---------------------------------------------------------------------


async def subject_told(
    gateway: RunningGateway,
    web: ScriptedUpstream,
    context: ssl.SSLContext,
    *fields: tuple[str, str],
) -> list[bytes]:
    """Ask once over TLS; tell what the instance is told of the client's certificate."""
    async with SecuredClient(gateway.tls_port) as client:
        await client.secure(context)
        await client.send(ask("/", "GET", *fields))
        assert 200 == (await client.read_response()).status
    return web.requests[-1].values(b"x-forwarded-client-cert")


@fast_only
async def test_the_subject_of_a_client_is_told_and_cannot_be_forged(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    """Under the ASGI face nobody tells of certificates; what clients say of them is dropped too."""
    mine = authority.pair("jo@x", file="jo", common_name='Jo "J", é', organization="ACME")
    forged = ("X-Forwarded-Client-Cert", 'Subject="CN=root"')
    settings = {"tls_client_auth": "optional", "tls_client_ca": authority.ca_file}
    async with ScriptedUpstream() as web, secured(routes_to(web), **settings) as gateway:
        told = await subject_told(gateway, web, authority.client_context(mine), forged)
        without = await subject_told(gateway, web, authority.client_context(), forged)

    (value,) = told
    assert value.startswith(rb'Subject="CN=Jo \\\"J\\\"\\, \\C3\\A9,OU=Testing cert')
    assert value.endswith(b',O=ACME"')
    assert [] == without


async def test_a_client_without_a_certificate_is_turned_away_where_one_is_required(
    secured: Callable[..., RunningGateway], authority: Authority, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path / "strangers")
    settings = {"tls_client_auth": "required", "tls_client_ca": authority.ca_file}
    forgotten = authority.client_context()
    forged = authority.client_context(strangers.pair("jo@x"))
    async with ScriptedUpstream() as web, secured(routes_to(web), **settings) as gateway:
        for context in (forgotten, forged):
            # In TLS 1.3 the refusal comes with the first read.
            with pytest.raises((ssl.SSLError, ConnectionError, BrokenOffError)):
                await subject_told(gateway, web, context)
        mine = authority.client_context(authority.pair("jo@x", file="jo"))
        await subject_told(gateway, web, mine)

    assert 1 == len(web.requests)


# --- Certificates that change --------------------------------------------------------------------


async def test_a_changed_certificate_is_shown_to_new_clients_and_old_ones_stay(
    secured: Callable[..., RunningGateway], authority: Authority
) -> None:
    context = authority.client_context()
    context.check_hostname = False
    pair = authority.pair("before.example")
    async with ScriptedUpstream() as web, secured(routes_to(web), pair) as gateway:
        certificates = gateway.gateway.certificates
        assert certificates is not None
        async with SecuredClient(gateway.tls_port) as old, SecuredClient(gateway.tls_port) as new:
            await old.secure(context)
            pair.key.write_text("half written")
            certificates.refresh()
            certificates.refresh()
            refused = gateway.logged("certificate_refused")
            authority.pair("after.example")
            certificates.refresh()
            await new.secure(context)
            for client in (old, new):
                await client.send(ask())
                assert 200 == (await client.read_response()).status
            assert (["before.example"], ["after.example"]) == (old.names, new.names)

    assert [("error", f"{pair.key} cannot be used: no private key")] == [
        (one["log_level"], one["reason"]) for one in refused
    ]
    assert [["after.example"]] == [one["names"] for one in gateway.logged("certificate_loaded")]
