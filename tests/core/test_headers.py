"""Which fields of a request reach the instance, and under whose name."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.core.headers import (
    FramingError,
    host_and_length,
    is_plain_host,
    is_token,
    is_valid_host,
    listed,
    parse_length,
    read_request,
    split_request,
    trailer_fields,
    with_host,
    without_alike,
)
from gateway.core.identity import IDENTITY, identity_lines
from gateway.core.message import Fields, Peer, Request, fields_of, lines_of

VIA = b"\r\nVia: 1.1 gateway"
STRANGER = Peer(b"203.0.113.9", b"https", is_trusted=False)
BALANCER = Peer(b"10.0.0.2", b"http", is_trusted=True)
SOCKET = Peer(b"", b"http", is_trusted=True)
OURS = [
    (b"X-Forwarded-For", b"203.0.113.9"),
    (b"X-Real-Ip", b"203.0.113.9"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"api.example.com"),
    (b"X-Request-Id", b"id-1"),
    (b"Via", b"1.1 gateway"),
]


def sent(fields: Fields, *, peer: Peer = STRANGER) -> Fields:
    """Tell what the instance gets for these fields, in order."""
    request = Request(b"GET", b"/", b"", lines_of(fields), b"api.example.com")
    request.peer = peer
    request.request_id = b"id-1"
    read_request(request, split_request(request.lines))
    return fields_of(
        request.crossing
        + identity_lines(peer, b"api.example.com", b"id-1", request.received, b"")
        + VIA
    )


def values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for one, value in fields if one.lower() == name]


# --- Certificates of clients ---------------------------------------------------------------------


ROOT = (b"X-Forwarded-Client-Cert", b'Subject="CN=root"')
JO = b'Subject="CN=jo"'


def certificates_told(*fields: tuple[bytes, bytes], shown: bytes, is_trusted: bool) -> list[bytes]:
    peer = Peer(b"10.0.0.2", b"https", is_trusted=is_trusted, certificate=shown)
    return values(sent(list(fields), peer=peer), b"x-forwarded-client-cert")


@pytest.mark.parametrize("shown", [b"", JO], ids=["no certificate", "a certificate"])
@pytest.mark.parametrize(
    "name", [b"X-Forwarded-Client-Cert", b"x_forwarded_client_cert", b"X-Forwarded-client_CERT"]
)
def test_a_client_cannot_tell_of_a_certificate_but_by_showing_it(name: bytes, shown: bytes) -> None:
    fields = [(name, ROOT[1]), (b"Connection", b"close, X-Forwarded-Client-Cert")]

    told = certificates_told(*fields, shown=shown, is_trusted=False)

    assert [one for one in (shown,) if one] == told


@pytest.mark.parametrize(
    ("shown", "told"), [(b"", ROOT[1]), (JO, ROOT[1] + b", " + JO)], ids=["one", "both"]
)
def test_a_trusted_proxy_passes_a_certificate_on_and_its_own_comes_behind(
    shown: bytes, told: bytes
) -> None:
    assert [told] == certificates_told(ROOT, shown=shown, is_trusted=True)


def test_a_trusted_proxy_that_passes_none_on_has_only_its_own() -> None:
    chain = (b"X-Forwarded-For", b"203.0.113.9")

    assert [JO] == certificates_told(chain, shown=JO, is_trusted=True)
    assert [] == certificates_told(chain, shown=b"", is_trusted=True)


# --- What crosses --------------------------------------------------------------------------------


def test_end_to_end_fields_keep_their_order_case_and_duplicates() -> None:
    fields = [
        (b"accept", b"text/html"),
        (b"X-Tag", b"b"),
        (b"ACCEPT", b"*/*;q=0.1"),
        (b"x-tag", b"a"),
        (b"X-Tag", b"b"),
        (b"X-Empty", b""),
        (b"X-Latin", b"caf\xe9"),
    ]

    assert [*fields, *OURS] == sent(fields)


@pytest.mark.parametrize(
    "name",
    [
        *(b"Authorization", b"Cookie", b"Proxy-Authenticate", b"Proxy-Authorization"),
        *(b"traceparent", b"tracestate", b"Expect", b"Trailer", b"Max-Forwards"),
        *(b"Accept-Encoding", b"User-Agent", b"Content-Type", b"Origin", b"Range"),
    ],
)
def test_fields_that_are_none_of_our_business_are_untouched(name: bytes) -> None:
    assert (name, b"some Value, other") in sent([(name, b"some Value, other")])


def test_the_via_of_those_before_us_stays_in_front_of_ours() -> None:
    got = sent([(b"Via", b"1.0 fred"), (b"Connection", b"via")])

    assert [b"1.0 fred", b"1.1 gateway"] == values(got, b"via")


@pytest.mark.parametrize(
    "field",
    [
        (b"Connection", b"close"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"TE", b"gzip"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Upgrade", b"h2c"),
    ],
    ids=lambda field: field[0].decode(),
)
def test_hop_by_hop_fields_stop_here(field: tuple[bytes, bytes]) -> None:
    name, value = field

    for spelling in (name, name.lower(), name.upper()):
        assert sent([(spelling, value)]) == OURS


@pytest.mark.parametrize("other", [[], [(b"Connection", b"close")]], ids=["alone", "cut"])
@pytest.mark.parametrize(
    ("field", "crosses"),
    [
        ((b"Host", b"a"), b"a"),
        ((b"hOST", b"a  "), b"a"),
        ((b"Content-Length", b"5"), b"5"),
        ((b"content-length", b"0"), b"0"),
        ((b"Content-Length", b"007"), b"7"),
        ((b"Content-Length", b"00 "), b"0"),
    ],
)
def test_host_and_length_cross_where_they_stand_in_one_clear_spelling(
    field: tuple[bytes, bytes], crosses: bytes, other: Fields
) -> None:
    first, last = (b"A", b"1"), (b"B", b"2")

    got = sent([first, field, *other, last])

    assert [first, (field[0], crosses), last, *OURS] == got


def test_what_connection_names_stops_here_wherever_it_stands() -> None:
    fields = [
        (b"X-Before", b"1"),
        (b"Connection", b"close, X-BEFORE"),
        (b"CONNECTION", b"\tx-after ,,HTTP2-Settings"),
        (b"x-after", b"2"),
        (b"X-After", b"3"),
        (b"HTTP2-Settings", b"AAMAAABkAAQ"),
        (b"X-Kept", b"4"),
    ]

    assert [(b"X-Kept", b"4"), *OURS] == sent(fields)


@pytest.mark.parametrize("te", [b"trailers", b"gzip;q=0.5, Trailers", b"\ttrailers "])
def test_a_client_that_takes_trailers_is_heard(te: bytes) -> None:
    """RFC 9110 §10.1.4: TE goes with a Connection field of ours that names it."""
    got = sent([(b"te", te), (b"connection", b"te")])

    assert [(b"TE", b"trailers"), (b"Connection", b"TE"), *OURS] == got


# --- Who asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name.lower() for name, _ in OURS] + [b"host", b"content-length"])
def test_a_client_cannot_have_our_fields_removed(name: bytes) -> None:
    """CVE-2022-31813, CVE-2024-45410: Connection: X-Forwarded-For made the client invisible."""
    assert sent([(b"Connection", b"close, " + name), (b"X-Forwarded-For", b"1.1.1.1")]) == OURS


@pytest.mark.parametrize("name", [b"Expect", b"Max-Forwards", b"Idempotency-Key"])
def test_an_instance_learns_by_what_the_gateway_goes_whatever_connection_names(name: bytes) -> None:
    """Else one would wait for a 100 that nobody asked for, or send a POST twice without its key."""
    got = sent([(name, b"1"), (b"Connection", b"close, " + name.lower()), (b"Connection", name)])

    assert [(name, b"1"), *OURS] == got


def test_other_spellings_of_our_fields_are_dropped_even_from_a_trusted_peer() -> None:
    """Who passes them on did not set them: it is the client who speaks (CVE-2026-39858)."""
    got = sent([(b"X_Forwarded_For", b"1.1.1.1"), (b"X-Real_IP", b"1.1.1.1")], peer=BALANCER)

    assert [b"10.0.0.2"] == values(got, b"x-forwarded-for")
    assert not any(b"1.1.1.1" in value for _, value in got)


@pytest.mark.parametrize("joint", [bytes([one]) for one in b"!#$%&'*+-.^_`|~"])
@pytest.mark.parametrize("peer", [STRANGER, BALANCER], ids=["stranger", "balancer"])
def test_no_spelling_of_our_fields_crosses(joint: bytes, peer: Peer) -> None:
    """CGI makes an underscore of every character that is no letter and no digit."""
    names = [name.replace(b"-", joint, times) for name in IDENTITY for times in (1, 2, 3)]
    others = [name for name in names if name not in IDENTITY]

    got = sent([(name.title(), b"1.1.1.1") for name in others], peer=peer)

    assert not any(b"1.1.1.1" in value for _, value in got)


@pytest.mark.parametrize(
    "name",
    [
        *(b"X-Forwarded-User", b"X-Forwarded-Server", b"x-forwarded-email", b"X_FORWARDED_GROUPS"),
        *(b"X-Forwarded", b"X.Forwarded.Access-Token", b"X-Forwarded-", b"x-forwarded-for-"),
    ],
)
def test_what_was_forwarded_is_told_by_trusted_peers_alone(name: bytes) -> None:
    """Apps behind an authenticating proxy believe X-Forwarded-User."""
    assert sent([(name, b"root")]) == OURS
    assert (name, b"root") in sent([(name, b"root")], peer=BALANCER)


@pytest.mark.parametrize("peer", [STRANGER, BALANCER], ids=["stranger", "balancer"])
@pytest.mark.parametrize("name", [b"Proxy", b"proxy", b"PROXY"])
def test_nobody_tells_instances_which_proxy_to_use(name: bytes, peer: Peer) -> None:
    """CGI makes HTTP_PROXY of it (httpoxy, CVE-2016-5385)."""
    assert (name, b"http://evil") not in sent([(name, b"http://evil")], peer=peer)
    assert (b"Proxy-Authorization", b"x") in sent([(b"Proxy-Authorization", b"x")], peer=peer)


@pytest.mark.parametrize(
    "name", [b"X-Forward", b"XForwardedFor", b"X-Forwardedx", b"X-Real", b"Px"]
)
def test_names_that_only_begin_like_ours_are_untouched(name: bytes) -> None:
    assert (name, b"1") in sent([(name, b"1")])


def test_a_peer_without_an_address_adds_nothing_to_the_chain() -> None:
    """A Unix socket has no address; an empty element at the end would hide the client."""
    got = sent([(b"X-Forwarded-For", b"198.51.100.7")], peer=SOCKET)

    assert [b"198.51.100.7"] == values(got, b"x-forwarded-for")


# --- Small grammars ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length"), [(b"0", 0), (b"5", 5), (b"007", 7), (b"5  ", 5), (b"9" * 18, None)]
)
def test_a_length_is_digits(text: bytes, length: int | None) -> None:
    assert (10**18 - 1 if length is None else length) == parse_length(text)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"+5", b"-5", b"5_0", b"5, 5", b"5,5", b"5 5", b" 5", b"5 6 ", b"5\n", b"5.0"),
        *(b"0x5", b"5h", b"1e3", "\u0665".encode(), "\uff15".encode(), b"\xb2", b"9" * 19),
    ],
)
def test_what_only_looks_like_a_length_is_refused(text: bytes) -> None:
    """int() takes several of these (CVE-2023-47627, CVE-2025-69224)."""
    with pytest.raises(FramingError):
        parse_length(text)


@pytest.mark.parametrize(
    ("host", "is_valid"),
    [
        *((b"a", True), (b"api.example.com", True), (b"a:8080", True), (b"a:", True)),
        *((b"10.0.0.1:80", True), (b"[::1]", True), (b"[fe80::1%25eth0]:80", False)),
        *((b"a%20b", False), (b"%C3%A9.test:1", False), (b"a%zz", False), (b"%", False)),
        *((b"a%2", False), (b"%2:80", False), (b":80", False), (b":", False), (b"a%20:x", False)),
        *((b"[:::::]", False), (b"[1.2.3.4]", False), (b"[1:2]", False), (b"[::1%25]", False)),
        *((b"[::ffff:1.2.3.4]:80", True), (b"[::1]:x", False), (b"[::1]a", False), (b"[]", False)),
        *((b"", False), (b"a b", False), (b"a@b", False), (b"a/b", False), (b"a?b", False)),
        *((b"a#b", False), (b"a:b", False), (b"a:80:80", False), (b"::1", False)),
        *((b"[::1", False), (b"[evil]", False), (b"a\r\nX: 1", False), (b"a\n", False)),
        *((b"caf\xe9", False), (b"a\\b", False), (b"a:123456", False), (b"a:0", True)),
        *((b"a:65535", True), (b"a:65536", False), (b"a:99999", False), (b"a:00080", False)),
        *((b"a.", True), (b"a.:80", True), (b"a..b", False), (b".a", False), (b"a..", False)),
        *((b".", False), (b"%2e", False), (b"a%2eb", False), (b"[::1]:65536", False)),
    ],
)
def test_a_host_is_a_host_with_an_optional_port(host: bytes, *, is_valid: bool) -> None:
    assert is_valid == bool(is_valid_host(host))


def is_name_by_hand(host: bytes) -> bool:
    """Read a name, without escapes, with an optional port, with a plain loop."""
    name, colon, port = host.partition(b":")
    if colon and port.strip(b"0123456789"):
        return False
    if len(port) > 4 and (port.startswith(b"0") or int(port) > 65535):
        return False
    allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~!$&'()*+,;="
    labels = name.removesuffix(b".").split(b".")
    return all(label and not label.strip(allowed) for label in labels)


@pytest.mark.parametrize("length", range(7))
def test_a_plain_host_is_what_a_plain_loop_takes_for_one(length: int) -> None:
    for letters in product((b":", b".", b"a", b"%41", b"0", b"65", b"\n"), repeat=length):
        host = b"".join(letters)
        assert is_name_by_hand(host) == bool(is_plain_host(host)), host


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *((b"GET", True), (b"M-SEARCH", True), (b"!#$%&'*+-.^_`|~", True), (b"", False)),
        *((b"GE T", False), (b"a:", False), (b"a\r\n", False), (b"a(b)", False), (b"\xe9", False)),
    ],
)
def test_a_token_has_no_separators(text: bytes, *, is_one: bool) -> None:
    assert is_one == is_token(text)


# --- Trailers ------------------------------------------------------------------------------------


def test_trailers_cross_unless_somebody_could_take_them_for_headers_that_matter() -> None:
    """RFC 9110 §6.5.1: whoever merges trailers into headers must not be led astray."""
    good = [
        *((b"Server-Timing", b"db;dur=53"), (b"Grpc-Status", b"0"), (b"ETag", b'"x"')),
        *((b"Content-Digest", b"sha-256=:x:"), (b"X-Checksum", b"1"), (b"checksum", b"2")),
    ]
    bad = [
        *(b"Content-Length", b"Transfer-Encoding", b"HOST", b"Authorization", b"Set-Cookie"),
        *(b"Connection", b"TE", b"X-Forwarded-For", b"x_forwarded_for", b"X-Request-Id"),
        *(b"Proxy-Authorization", b"Proxy-Authenticate", b"WWW-Authenticate", b"Cookie"),
        *(b"Content-Type", b"Content-Encoding", b"Content-Range", b"Trailer", b"Expect"),
        *(b"Age", b"Cache-Control", b"Expires", b"Pragma", b"Vary", b"Max-Forwards"),
        *(b"X.Forwarded.For", b"X-Forwarded-User", b"x~real-ip", b"Proxy", b"Range", b"If-Match"),
        *(b"Origin", b"Via", b"Idempotency-Key", b"Unknown", b"Grpc-Timeout", b"Retry-After"),
    ]

    assert good == trailer_fields([*good, *((name, b"x") for name in bad)])


@pytest.mark.parametrize(
    ("fields", "usual"),
    [
        ([(b"Host", b"a")], (b"a", 0)),
        ([(b"host", b"a"), (b"Accept", b"*/*")], (b"a", 0)),
        ([(b"HOST", b"a")], None),
        ([(b"Host", b"a"), (b"Content-Length", b"12")], (b"a", 12)),
        ([(b"Content-Length", b"12"), (b"Host", b"a")], (b"a", 12)),
        ([(b"Host", b"a"), (b"Content-Length", b"012")], None),
        ([(b"Host", b"a"), (b"Content-Length", b"+1")], None),
        ([(b"Host", b"a"), (b"Content-Length", b"1" * 19)], None),
        ([(b"Host", b"a"), (b"Host", b"b")], None),
        ([(b"Host", b"a"), (b"Content-Length", b"1"), (b"Expect", b"100-continue")], None),
        ([(b"Accept", b"*/*")], None),
    ],
)
def test_most_requests_say_where_to_and_how_long_and_nothing_else(
    fields: Fields, usual: tuple[bytes, int] | None
) -> None:
    assert host_and_length(split_request(lines_of(fields))) == usual


@pytest.mark.parametrize("fields", [[], [(b"A", b"1")]])
def test_a_request_without_a_host_is_given_one_first_of_all(fields: Fields) -> None:
    lines = with_host(lines_of(fields), b"web")

    assert fields_of(lines) == [(b"Host", b"web"), *fields]


def test_a_list_of_more_than_anybody_has_a_use_for_is_refused() -> None:
    """Tens of thousands of names in Connection take milliseconds, for each of many clients."""
    assert len(listed(b",".join(b"a%d" % number for number in range(101)))) == 101

    with pytest.raises(FramingError, match="too many"):
        listed(b"a," * 101)


def test_host_says_something_else_where_it_stands() -> None:
    lines = with_host(lines_of([(b"A", b"1"), (b"hOST", b"x"), (b"B", b"2")]), b"web")

    assert fields_of(lines) == [(b"A", b"1"), (b"Host", b"web"), (b"B", b"2")]


def test_fields_are_left_out_in_every_spelling() -> None:
    fields = [(b"X-User_Id", b"1"), (b"x.user.id", b"2"), (b"X-User", b"3")]

    assert without_alike(fields, frozenset({b"x-user-id"})) == [(b"X-User", b"3")]
