"""A listener over TLS by itself: how long a client may take, and what its end costs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.message import Peer
from gateway.edge.face import FaceOptions
from gateway.edge.fast import FastFace
from gateway.edge.peers import Peers
from gateway.edge.proxy_protocol import Told
from gateway.edge.server import ServeOptions, Site, SiteServer, listen
from gateway.edge.tls import Certificates, TlsFiles
from gateway.runtime.backlog import Backlog
from gateway.settings import load_settings
from tests.fakes.client import RawClient
from tests.fakes.engine import Stage
from tests.fakes.tls import Authority
from tests.fakes.waiting import PATIENCE_S, wait_until

OPTIONS = ServeOptions(
    keepalive_timeout_s=60,
    drain_delay_s=0,
    drain_idle_s=0,
    drain_timeout_s=1,
    handshake_timeout_s=PATIENCE_S,
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def no_app(scope: object, receive: object, send: object) -> None:
    """Be called by nobody: the fast face has no use for it here."""
    raise AssertionError


@asynccontextmanager
async def listening(
    authority: Authority, *, is_proxied: bool = False, options: ServeOptions = OPTIONS
) -> AsyncIterator[int]:
    """Give the port of a listener whose gateway has no route that is asked for."""
    pair = authority.pair("localhost")
    certificates = Certificates(TlsFiles(pairs=((pair.cert, pair.key),)))
    engine = Stage().engine
    engine.backlog = Backlog()  # that of the Stage waits for turns that a test has to play
    networks = load_settings({"trusted_proxies": "127.0.0.0/8"}).trusted_proxies
    site = Site(
        name="tls",
        app=no_app,
        listener=listen("127.0.0.1", 0),
        http=FastFace(engine, Peers(networks), FaceOptions()),
        tls=certificates.context,
        is_proxied=is_proxied,
    )
    port: int = site.listener.getsockname()[1]
    opened = SiteServer(site, options)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(opened.run_until_left())
        await wait_until(lambda: opened.started)
        yield port
        opened.leave(at_once=True)
        await serving


@pytest.mark.parametrize("first", [None, b"PROXY UNKNOWN\r\n"], ids=["bare", "proxied"])
async def test_a_client_that_does_not_shake_hands_is_dropped_in_time(
    authority: Authority, first: bytes | None
) -> None:
    options = replace(OPTIONS, handshake_timeout_s=0.1)
    async with listening(authority, is_proxied=first is not None, options=options) as port:
        async with RawClient(port) as client:
            await client.send(first or b"\x16")
            await client.expect_closed()


@pytest.mark.soak
async def test_a_client_that_never_confirms_the_end_does_not_hold_the_gateway_up(
    authority: Authority,
) -> None:
    """By itself TLS waits for half a minute for the other side to agree that it is over."""

    def ask_and_confirm_nothing(port: int) -> float:
        """Read below TLS, which therefore cannot answer; tell how long the end took."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sock,
            authority.client_context().wrap_socket(sock, server_hostname="localhost") as client,
        ):
            client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            started_s = time.monotonic()
            while socket.socket.recv(client, 4096):
                pass
            return time.monotonic() - started_s

    async with listening(authority) as port:
        assert await asyncio.to_thread(ask_and_confirm_nothing, port) < 20


class FakeTransport(asyncio.BaseTransport):
    """A transport that only says who is at its other end."""

    def __init__(self, **extra: object) -> None:
        super().__init__(extra=extra)


CERTIFICATE = {"subject": ((("commonName", "jo"),),)}


def facts(peer: Peer) -> tuple[bytes, bytes, bool, bytes]:
    return peer.address, peer.scheme, peer.is_trusted, peer.certificate


@pytest.mark.parametrize(
    ("address", "told", "known"),
    [
        ("10.0.0.1", None, (b"10.0.0.1", True)),
        ("192.0.2.1", None, (b"192.0.2.1", False)),
        ("10.0.0.1", "192.0.2.1", (b"192.0.2.1", False)),
        ("10.0.0.1", "10.0.0.2", (b"10.0.0.2", True)),
        ("10.0.0.1", "", (b"10.0.0.1", False)),
        ("192.0.2.1", "10.0.0.2", (b"192.0.2.1", False)),
        ("192.0.2.1", "", (b"192.0.2.1", False)),
    ],
    ids=[
        "a proxy for itself",
        "a stranger for itself",
        "a proxy for a stranger",
        "a proxy for a proxy",
        "a proxy for nobody it names",
        "a stranger for a proxy",
        "a stranger for nobody",
    ],
)
@pytest.mark.parametrize("shown", [None, CERTIFICATE], ids=["no certificate", "a certificate"])
def test_who_is_there_and_who_is_believed(
    address: str, told: str | None, known: tuple[bytes, bool], shown: object
) -> None:
    peers = Peers(load_settings({"trusted_proxies": "10.0.0.0/8"}).trusted_proxies)
    transport = FakeTransport(peername=(address, 1), ssl_object=object(), peercert=shown)

    peer = peers.of(transport, None if told is None else Told(told, 0))

    certificate = b'Subject="CN=jo"' if shown else b""
    assert (known[0], b"https", known[1], certificate) == facts(peer)


def test_a_connection_without_an_address_is_one_of_nobody() -> None:
    peers = Peers(load_settings({"trusted_proxies": "10.0.0.0/8"}).trusted_proxies)

    assert (b"", b"http", False, b"") == facts(peers.of(FakeTransport(peername="/run/x.sock")))
