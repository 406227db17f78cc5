"""Who stands behind a peer: a chain is read from its right end, and only while it is believed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.peer import Listener, Peer, TrustedProxies

PROXIES = TrustedProxies(tuple(ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32")))


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (b"198.51.100.7", b"198.51.100.7"),
        (b"198.51.100.7, 10.0.0.9", b"198.51.100.7"),
        (b"198.51.100.7,10.0.0.9 ,\t10.0.0.8", b"198.51.100.7"),
        # What stands left of the first that is not trusted is what that one says.
        (b"6.6.6.6, 198.51.100.7", b"198.51.100.7"),
        (b"10.0.0.1, 198.51.100.7, 10.0.0.9", b"198.51.100.7"),
        # All are trusted: the first one asked.
        (b"10.0.0.7", b"10.0.0.7"),
        (b"10.0.0.7, 10.0.0.8", b"10.0.0.7"),
        # What is no address ends the walk at the last that told it.
        (b"", b"10.0.0.2"),
        (b"unknown", b"10.0.0.2"),
        (b"198.51.100.7, unknown", b"10.0.0.2"),
        (b"198.51.100.7, unknown, 10.0.0.9", b"10.0.0.9"),
        (b"198.51.100.7, , 10.0.0.9", b"10.0.0.9"),
        (b"198.51.100.7,", b"10.0.0.2"),
        (b"010.0.0.1", b"10.0.0.2"),
        (b"1.2.3", b"10.0.0.2"),
        (b"1.2.3.4:123456", b"10.0.0.2"),
        (b"caf\xe9", b"10.0.0.2"),
        # Other ways to write an address.
        (b"198.51.100.7:4711, 10.0.0.9:80", b"198.51.100.7"),
        (b"2001:DB9:0::1", b"2001:db9::1"),
        (b"[2001:db9::1]", b"2001:db9::1"),
        (b"[2001:db9::1]:4711, 2001:db8::5", b"2001:db9::1"),
        (b"::ffff:198.51.100.7, ::ffff:10.0.0.9", b"198.51.100.7"),
        (b'fe80::1%eth0"x', b"fe80::1"),
    ],
)
def test_the_client_is_the_last_that_is_not_trusted(chain: bytes, client: bytes) -> None:
    assert client == PROXIES.client_behind(b"10.0.0.2", chain)


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (b"198.51.100.7, 10.0.0.9", b"198.51.100.7"),
        (b"198.51.100.7, 203.0.113.1", b"203.0.113.1"),
        (b"198.51.100.7, unknown", b"unknown"),
        (b"unknown", b"unknown"),
    ],
)
def test_where_the_peer_has_no_address_the_chain_begins_with_its_last_entry(
    chain: bytes, client: bytes
) -> None:
    assert client == PROXIES.client_behind(b"", chain)


def test_who_is_trusted_is_shown() -> None:
    assert "<TrustedProxies 10.0.0.0/8, 2001:db8::/32>" == repr(PROXIES)
    assert "<TrustedProxies none>" == repr(TrustedProxies())
    assert PROXIES.trusts("10.0.0.2")
    assert not TrustedProxies().trusts("10.0.0.2")


# --- What is the same for all requests of a peer -------------------------------------------------


ADDRESS = b"\r\nX-Forwarded-For: 192.0.2.1\r\nX-Real-Ip: 192.0.2.1"
PROTO, PORT = b"\r\nX-Forwarded-Proto: https", b"\r\nX-Forwarded-Port: 8443"
CERTIFICATE = b'\r\nX-Forwarded-Client-Cert: Subject="CN=jo"'


@pytest.mark.parametrize(
    ("address", "certificate", "port", "lines"),
    [
        (b"192.0.2.1", b"", 0, ADDRESS + PROTO),
        (b"192.0.2.1", b"", 8443, ADDRESS + PROTO + PORT),
        (b"192.0.2.1", b'Subject="CN=jo"', 0, ADDRESS + PROTO + CERTIFICATE),
        (b"", b"", 0, PROTO),
    ],
)
def test_what_is_told_of_a_peer_is_written_once(
    address: bytes, certificate: bytes, port: int, lines: bytes
) -> None:
    listener = Listener(port=port)
    peer = Peer(address, b"https", is_trusted=False, certificate=certificate, listener=listener)

    assert lines == peer.lines
    assert b"" == peer.forwarded


@pytest.mark.parametrize(
    ("address", "element"),
    [
        (b"192.0.2.1", b"for=192.0.2.1;proto=https"),
        (b"2001:db8::1", b'for="[2001:db8::1]";proto=https'),
        (b"", b"for=unknown;proto=https"),
    ],
)
def test_its_element_of_forwarded_is_quoted_as_the_rfc_wants_it(
    address: bytes, element: bytes
) -> None:
    """RFC 7239 §6: IPv6 stands in brackets, and so in quotes."""
    listener = Listener(tells_forwarded=True)

    assert element == Peer(address, b"https", is_trusted=False, listener=listener).forwarded


def test_a_peer_shows_who_it_is() -> None:
    assert "<Peer http 192.0.2.1, not trusted>" == repr(
        Peer(b"192.0.2.1", b"http", is_trusted=False)
    )
    assert "<Peer http 10.0.0.2, trusted>" == repr(Peer(b"10.0.0.2", b"http", is_trusted=True))


def test_a_chain_without_end_is_not_read_to_its_begin() -> None:
    """Thousands of addresses in one field would take a tenth of a second."""
    proxies = TrustedProxies((ip_network("10.0.0.0/8"),))
    chain = b", ".join(b"10.0.%d.%d" % divmod(number, 200) for number in range(5000))

    assert proxies.client_behind(b"10.9.9.9", chain) == b"10.0.24.150"
    assert proxies.read.cache_info().misses == 50


def test_what_is_too_long_for_an_address_is_none_and_is_not_kept() -> None:
    proxies = TrustedProxies((ip_network("10.0.0.0/8"),))

    assert proxies.client_behind(b"10.9.9.9", b"1.2.3.4, " + b"1" * 65) == b"10.9.9.9"
    assert proxies.read.cache_info().misses == 0
