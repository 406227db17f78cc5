"""Who is believed: peers whose address is in trusted_proxies, and nobody else."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.core.message import Peer
from gateway.edge.peers import Peers
from gateway.edge.proxy_protocol import Told

TRUSTED = tuple(ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"))


def transport_of(name: object, **extra: Any) -> asyncio.BaseTransport:
    return asyncio.BaseTransport({"peername": name, **extra})


def seen(peer: Peer) -> tuple[bytes, bytes, bool]:
    return peer.address, peer.scheme, peer.is_trusted


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("", False),
        ("a-test-client", False),
    ],
)
def test_a_peer_is_trusted_if_its_address_is_in_the_list(address: str, *, is_trusted: bool) -> None:
    assert is_trusted is Peers(TRUSTED).peer(address, "http").is_trusted


def test_without_a_list_nobody_is_trusted() -> None:
    assert (b"10.1.2.3", b"https", False) == seen(Peers(()).peer("10.1.2.3", "https"))


def test_a_peer_is_made_once() -> None:
    peers = Peers(TRUSTED)

    assert peers.peer("10.1.2.3", "http") is peers.peer("10.1.2.3", "http")


@pytest.mark.parametrize(
    ("transport", "expected"),
    [
        (transport_of(("10.1.2.3", 4711)), (b"10.1.2.3", b"http", True)),
        (transport_of(("2001:db9::1", 4711, 0, 0)), (b"2001:db9::1", b"http", False)),
        (transport_of(("11.1.2.3", 1), ssl_object=object()), (b"11.1.2.3", b"https", False)),
        (transport_of(""), (b"", b"http", False)),
        (transport_of(None), (b"", b"http", False)),
    ],
)
def test_a_connection_tells_its_peer(
    transport: asyncio.BaseTransport, expected: tuple[bytes, bytes, bool]
) -> None:
    assert expected == seen(Peers(TRUSTED).of(transport))


@pytest.mark.parametrize(
    ("proxy", "told", "expected"),
    [
        ("10.1.2.3", "::ffff:198.51.100.1", (b"198.51.100.1", b"http", False)),
        ("10.1.2.3", "198.51.100.1", (b"198.51.100.1", b"http", False)),
        ("10.1.2.3", "10.9.9.9", (b"10.9.9.9", b"http", True)),
        ("10.1.2.3", "", (b"10.1.2.3", b"http", False)),
        ("11.1.2.3", "10.9.9.9", (b"11.1.2.3", b"http", False)),
    ],
)
def test_the_proxy_protocol_is_believed_from_trusted_proxies_only(
    proxy: str, told: str, expected: tuple[bytes, bytes, bool]
) -> None:
    peer = Peers(TRUSTED).of(transport_of((proxy, 1)), Told(told, 0))

    assert expected == seen(peer)


def test_a_certificate_belongs_to_one_connection_not_to_an_address() -> None:
    peers = Peers(TRUSTED)
    certificate = {"subject": ((("commonName", "alice"),),)}

    shown = peers.of(transport_of(("10.1.2.3", 1), peercert=certificate))

    assert b"alice" in shown.certificate
    assert (b"10.1.2.3", b"http", True) == seen(shown)
    assert b"" == peers.of(transport_of(("10.1.2.3", 2))).certificate


@pytest.mark.parametrize(
    ("sockname", "told", "port"),
    [
        (("10.0.0.1", 8443), None, 8443),
        (("::1", 8443, 0, 0), None, 8443),
        ("/run/gateway.sock", None, 0),
        (None, None, 0),
        (("10.0.0.1", 8080), Told("198.51.100.1", 0, 443), 443),
        (("10.0.0.1", 8080), Told("198.51.100.1", 0), 8080),
        (("10.0.0.1", 8080), Told("", 0), 8080),
    ],
)
def test_the_port_is_the_listeners_or_the_one_that_a_trusted_proxy_names(
    sockname: object, told: Told | None, port: int
) -> None:
    transport = transport_of(("10.1.2.3", 4711), sockname=sockname)

    assert port == Peers(TRUSTED).of(transport, told).listener.port


def test_a_stranger_cannot_name_a_port_either() -> None:
    transport = transport_of(("11.1.2.3", 4711), sockname=("10.0.0.1", 8080))

    assert 8080 == Peers(TRUSTED).of(transport, Told("198.51.100.1", 0, 443)).listener.port


def test_forwarded_is_told_where_it_is_asked_for() -> None:
    peers = Peers((), tells_forwarded=True)

    assert b"for=10.1.2.3;proto=http" == peers.of(transport_of(("10.1.2.3", 1))).forwarded
    assert b"" == Peers(()).of(transport_of(("10.1.2.3", 1))).forwarded
