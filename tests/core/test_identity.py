"""What instances learn of who asked, from us and from those whom we believe."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.headers import read_request, split_request
from gateway.core.identity import client_of, identity_lines, prefix_line
from gateway.core.message import Fields, Request, fields_of, lines_of
from gateway.core.peer import Listener, Peer, TrustedProxies

PROXIES = TrustedProxies((ip_network("10.0.0.0/8"),))
LISTENER = Listener(port=8080, proxies=PROXIES)
TELLING = Listener(port=8080, proxies=PROXIES, tells_forwarded=True)
STRANGER = Peer(b"203.0.113.9", b"http", is_trusted=False, listener=LISTENER)
PROXY = Peer(b"10.0.0.2", b"http", is_trusted=True, listener=LISTENER)
ADDRESS, HOST, ID = b"203.0.113.9", b"api.example.com", b"id-1"
FORGED = [
    *((b"X-Forwarded-For", b"1.1.1.1"), (b"X-Forwarded-Proto", b"ftp")),
    *((b"x-forwarded-host", b"evil.example"), (b"X-FORWARDED-PORT", b"1")),
    *((b"X-Forwarded-Prefix", b"/admin"), (b"X-Real-IP", b"1.1.1.1")),
    *((b"X-Request-Id", b"forged"), (b"Forwarded", b"for=1.1.1.1")),
    *((b"X_Forwarded_For", b"1.1.1.1"), (b"x-forwarded_port", b"1"), (b"X_REAL-IP", b"1.1.1.1")),
]


def told(
    fields: Fields, *, peer: Peer, prefix: bytes = b"", host: bytes = HOST
) -> dict[bytes, bytes]:
    """Tell what the instance gets of these fields, by name in lower case; each stands once."""
    request = Request(b"GET", b"/", b"", lines_of(fields), host)
    request.peer = peer
    request.request_id = ID
    read_request(request, split_request(request.lines))
    ours = identity_lines(peer, host, ID, request.received, prefix_line(prefix))
    pairs = fields_of(request.crossing + ours + b"\r\nVia: 1.1 gateway")
    found = {name.lower(): value for name, value in pairs}
    assert len(found) == len(pairs)
    return found


OURS = {
    b"x-forwarded-for": ADDRESS,
    b"x-real-ip": ADDRESS,
    b"x-forwarded-proto": b"http",
    b"x-forwarded-port": b"8080",
    b"x-forwarded-host": HOST,
    b"x-request-id": ID,
    b"via": b"1.1 gateway",
}


@pytest.mark.parametrize("fields", [[], FORGED], ids=["says nothing", "forges all"])
def test_a_stranger_is_told_as_it_was_seen(fields: Fields) -> None:
    assert OURS == told(fields, peer=STRANGER)
    assert OURS | {b"x-forwarded-prefix": b"/api"} == told(fields, peer=STRANGER, prefix=b"/api")


@pytest.mark.parametrize("peer", [STRANGER, PROXY], ids=["a stranger", "a trusted peer"])
@pytest.mark.parametrize("fields", [[], [(b"X-Forwarded-Proto", b"https")]], ids=["", "told more"])
def test_where_there_is_no_host_none_is_told(peer: Peer, fields: Fields) -> None:
    """HTTP/1.0 may leave it out; an empty one would be taken for what the client asked for."""
    assert b"x-forwarded-host" not in told(fields, peer=peer, host=b"")


def test_a_host_that_only_a_trusted_peer_knows_is_told() -> None:
    found = told([(b"X-Forwarded-Host", b"www.example.com")], peer=PROXY, host=b"")

    assert b"www.example.com" == found[b"x-forwarded-host"]


def test_a_trusted_peer_that_says_nothing_is_the_client() -> None:
    own = {b"x-forwarded-for": b"10.0.0.2", b"x-real-ip": b"10.0.0.2"}

    assert OURS | own == told([], peer=PROXY)


def test_what_a_trusted_peer_says_is_kept_and_what_is_seen_here_appended() -> None:
    fields = [
        *((b"X-Forwarded-For", b"6.6.6.6, 198.51.100.7"), (b"x-forwarded-for", b"10.0.0.9")),
        *((b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"www.example.com")),
        *((b"X-Forwarded-Port", b"8443"), (b"X-Forwarded-Prefix", b"/shop/")),
        *((b"X-Real-IP", b"6.6.6.6"), (b"Forwarded", b"for=198.51.100.7")),
    ]

    assert told(fields, peer=PROXY, prefix=b"/api") == {
        b"x-forwarded-for": b"6.6.6.6, 198.51.100.7, 10.0.0.9, 10.0.0.2",
        b"x-real-ip": b"198.51.100.7",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": b"www.example.com",
        b"x-forwarded-port": b"8443",
        b"x-forwarded-prefix": b"/shop/api",
        b"x-request-id": ID,
        b"forwarded": b"for=198.51.100.7",
        b"via": b"1.1 gateway",
    }


def test_the_real_address_is_what_was_found_not_what_was_said() -> None:
    """Load balancers of clouds append to X-Forwarded-For and let X-Real-Ip pass."""
    fields = [(b"X-Real-Ip", b"6.6.6.6"), (b"X-Forwarded-For", b"198.51.100.7")]

    assert b"198.51.100.7" == told(fields, peer=PROXY)[b"x-real-ip"]
    assert b"10.0.0.2" == told(fields[:1], peer=PROXY)[b"x-real-ip"]


@pytest.mark.parametrize(
    ("fields", "port"),
    [
        ([(b"X-Forwarded-For", b"198.51.100.7")], b"8080"),
        ([(b"X-Forwarded-Port", b"8443")], b"8443"),
        ([(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Port", b"443")], b"443"),
        ([(b"X-Forwarded-Proto", b"https")], None),
    ],
)
def test_the_port_of_the_listener_is_not_taken_for_that_of_a_proxy(
    fields: Fields, port: bytes | None
) -> None:
    assert port == told(fields, peer=PROXY).get(b"x-forwarded-port")


def test_where_there_is_no_port_none_is_told() -> None:
    peer = Peer(b"10.0.0.2", b"http", is_trusted=True)

    assert b"x-forwarded-port" not in told([(b"X-Forwarded-For", b"198.51.100.7")], peer=peer)


def test_nobody_is_named_where_nobody_is_known() -> None:
    peer = Peer(b"", b"http", is_trusted=True, listener=LISTENER)

    found = told([(b"X-Forwarded-Proto", b""), (b"X-Forwarded-Host", b"")], peer=peer)

    assert {b"x-forwarded-for", b"x-real-ip"} == OURS.keys() - found.keys()
    assert (b"http", HOST) == (found[b"x-forwarded-proto"], found[b"x-forwarded-host"])


@pytest.mark.parametrize(
    ("outer", "cut_off", "prefix"),
    [
        (b"/shop", b"/api", b"/shop/api"),
        (b"/shop", b"", b"/shop"),
        (b"/", b"/api", b"/api"),
        (b"//evil.example", b"/api", b"/api"),
        (b"/\\evil.example", b"/api", b"/api"),
        (b"https://evil.example", b"/api", b"/api"),
        (b"shop", b"", None),
    ],
)
def test_what_was_cut_off_before_stands_before_what_is_cut_off_here(
    outer: bytes, cut_off: bytes, prefix: bytes | None
) -> None:
    found = told([(b"X-Forwarded-Prefix", outer)], peer=PROXY, prefix=cut_off)

    assert prefix == found.get(b"x-forwarded-prefix")


# --- Forwarded (RFC 7239) ------------------------------------------------------------------------


def test_a_stranger_gets_an_element_of_its_own_and_only_that() -> None:
    peer = Peer(b"2001:db8::7", b"https", is_trusted=False, listener=TELLING)

    element = b'for="[2001:db8::7]";proto=https;host="api.example.com:8443"'
    for fields in ([], FORGED):
        assert element == told(fields, peer=peer, host=b"api.example.com:8443")[b"forwarded"]


def test_without_a_host_none_is_told() -> None:
    """HTTP/1.0 knows requests without Host."""
    peer = Peer(b"192.0.2.1", b"http", is_trusted=False, listener=TELLING)

    assert b"for=192.0.2.1;proto=http" == told([], peer=peer, host=b"")[b"forwarded"]


def test_to_what_a_trusted_peer_says_the_last_element_is_appended() -> None:
    peer = Peer(b"10.0.0.2", b"http", is_trusted=True, listener=TELLING)
    own = b'for=10.0.0.2;proto=http;host="api.example.com"'
    earlier = [(b"Forwarded", b'for="_a"'), (b"forwarded", b"for=198.51.100.7;proto=https")]

    assert own == told([], peer=peer)[b"forwarded"]
    assert own == told([(b"X-Forwarded-For", b"198.51.100.7")], peer=peer)[b"forwarded"]
    listed = b'for="_a", for=198.51.100.7;proto=https, ' + own
    assert listed == told(earlier, peer=peer)[b"forwarded"]


# --- Whose request it is -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        (STRANGER, None, ADDRESS),
        (STRANGER, b"198.51.100.7", ADDRESS),
        (PROXY, None, b"10.0.0.2"),
        (PROXY, b"1.1.1.1, 198.51.100.7, 10.0.0.3", b"198.51.100.7"),
        (Peer(b"", b"http", is_trusted=False), None, b""),
        (Peer(b"unix:1", b"http", is_trusted=False), None, b"unix:1"),
    ],
    ids=[
        *("a stranger", "one that invents", "a proxy alone", "behind proxies", "nobody knows"),
        "no address",
    ],
)
def test_a_request_is_of_whoever_is_known_to_have_sent_it(
    peer: Peer, chain: bytes | None, client: bytes
) -> None:
    received = None if chain is None else {b"x-forwarded-for": chain}

    assert client_of(peer, received) == client


def test_the_addresses_of_one_ipv6_network_are_one_client() -> None:
    first, second, other = (
        client_of(Peer(address, b"http", is_trusted=False), None)
        for address in (b"2001:db8::1", b"2001:db8::ffff:2", b"2001:db8:0:1::1")
    )

    assert first == second
    assert first != other
