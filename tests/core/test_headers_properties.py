"""Laws of what crosses, for any fields in any spelling; h11 reads what we write."""

from __future__ import annotations

import re

import h11
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.headers import (
    FramingError,
    interim_fields,
    read_answer,
    read_request,
    split_request,
    trailer_fields,
)
from gateway.core.identity import identity_lines
from gateway.core.message import UNKNOWN_PEER, Fields, Peer, Request, lines_of

VIA = (b"Via", b"1.1 gateway")
# RFC 9110 §7.6.1 and what it grew out of.
HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"),
}
IDENTITY = {
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"),
    *(b"x-forwarded-prefix", b"x-real-ip", b"x-request-id", b"forwarded"),
    b"x-forwarded-client-cert",
}
ACCEPTED = {b"host", b"content-length"}
PROTECTED = IDENTITY | ACCEPTED | {b"via", b"te"}

tokens = st.text("abcXYZ019-_!#$%&'*+.^`|~", min_size=1, max_size=8).map(str.encode)
known_names = st.sampled_from(
    sorted(
        {
            *(HOP_BY_HOP | PROTECTED),
            *(b"x_forwarded_for", b"x-forwarded_proto", b"x_request-id", b"x.real.ip"),
            *(b"x-forwarded-user", b"x~forwarded_server", b"x-forwarded", b"proxy", b"x-forward"),
            *(b"set-cookie", b"cookie", b"authorization", b"traceparent", b"date", b"expect"),
            *(b"proxy-authenticate", b"x-named", b"trailer", b"etag"),
        }
    )
)
spelled_names = st.builds(
    lambda name, upper: bytes(
        ord(chr(char).upper()) if up else char
        for char, up in zip(name, (upper * len(name))[: len(name)], strict=True)
    ),
    known_names,
    st.lists(st.booleans(), min_size=1, max_size=5),
)
names = st.one_of(spelled_names, tokens)
inner = st.text(
    "".join(map(chr, [9, 32, *range(0x21, 0x7F), *range(0x80, 0x100)])), max_size=12
).map(lambda text: text.encode("latin-1").strip(b" \t"))
named_lists = st.lists(
    st.one_of(names, st.sampled_from([b"close", b"keep-alive", b"x-named", b"Date", b""])),
    max_size=4,
).map(b" ,\t".join)
plain_field = st.tuples(names, inner)
connection_field = st.tuples(st.sampled_from([b"Connection", b"connection"]), named_lists)
te_field = st.tuples(st.just(b"TE"), st.sampled_from([b"trailers", b"gzip, Trailers", b"gzip"]))
field_lists = st.lists(st.one_of(plain_field, plain_field, connection_field, te_field), max_size=10)
answer_field_lists = st.lists(
    st.one_of(
        connection_field,
        st.tuples(st.sampled_from([b"Date", b"DATE", b"x-named", b"Set-Cookie"]), inner),
        plain_field,
    ).filter(lambda field: field[0].lower() not in {b"content-length", b"transfer-encoding"}),
    max_size=10,
)
framing_fields = st.sampled_from(
    [[], [(b"Content-length", b"5")], [(b"Transfer-encoding", b"chunked")]]
)
peers = st.builds(
    lambda address, trusted, certificate: Peer(
        address, b"https", is_trusted=trusted, certificate=certificate
    ),
    st.sampled_from([b"203.0.113.9", b"2001:db8::1"]),
    st.booleans(),
    st.sampled_from([b"", b'Subject="CN=jo"']),
)


def lines_for(fields: Fields, peer: Peer) -> bytes:
    """Write what the instance gets; who accepts has seen to it that Host and length are right."""
    fields = [field for field in fields if field[0].lower() not in ACCEPTED]
    request = Request(b"GET", b"/", b"", lines_of(fields), b"api.example.com")
    request.peer = peer
    request.request_id = b"id-1"
    read_request(request, split_request(request.lines))
    return (
        request.crossing
        + identity_lines(peer, b"api.example.com", b"id-1", request.received, b"")
        + b"\r\n%b: %b" % VIA
    )


def read_by_h11(lines: bytes) -> Fields:
    """Read what the instance gets with a parser that is not ours, Host and all."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: api.example.com" + lines + b"\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    host, *rest = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
    assert host == (b"Host", b"api.example.com")
    return rest


def names_in_connection(fields: Fields) -> set[bytes]:
    listed = [value for name, value in fields if name.lower() == b"connection"]
    return {name.strip(b" \t").lower() for value in listed for name in value.split(b",")}


def is_ours(name: bytes) -> bool:
    return re.sub(rb"[^0-9a-z]", b"-", name.lower()) in IDENTITY


def is_of_a_stranger(name: bytes, peer: Peer) -> bool:
    """Tell whether a field is dropped for who sent it, or for what CGI makes of it."""
    known_as = re.sub(rb"[^0-9a-z]", b"-", name.lower())
    is_told = known_as == b"x-forwarded" or known_as.startswith(b"x-forwarded-")
    return is_ours(name) or known_as == b"proxy" or (is_told and not peer.is_trusted)


@given(field_lists, peers)
def test_exactly_the_end_to_end_fields_of_a_request_cross_and_h11_reads_them_so(
    fields: Fields, peer: Peer
) -> None:
    stopped = HOP_BY_HOP | ACCEPTED | (names_in_connection(fields) - PROTECTED)

    got = read_by_h11(lines_for(fields, peer))

    wanted = [
        one
        for one in fields
        if one[0].lower() not in stopped and not is_of_a_stranger(one[0], peer)
    ]
    end = len(got) - 1
    first = next(at for at, one in enumerate(got) if one[0].lower() in IDENTITY)
    crossed = [one for one in got[:first] if one not in TE_LINES]
    assert wanted == crossed
    assert VIA == got[end]
    assert all(name.lower() in IDENTITY for name, _ in got[first:end])


# What is no path is not passed on.
PREFIX = b"x-forwarded-prefix"
TE_LINES = [(b"TE", b"trailers"), (b"Connection", b"TE")]


@given(field_lists, peers)
def test_no_hop_by_hop_field_of_a_client_crosses(fields: Fields, peer: Peer) -> None:
    got = read_by_h11(lines_for(fields, peer))

    hop_by_hop = [one for one in got if one[0].lower() in HOP_BY_HOP]
    asked = [value for name, value in fields if name.lower() == b"te"]
    takes_trailers = any(re.search(rb"(?i)(^|[,\s])trailers\s*(,|$)", value) for value in asked)
    assert {*hop_by_hop} == ({*TE_LINES} if takes_trailers else set())


@given(field_lists, peers)
def test_an_instance_always_learns_the_peer_and_the_id_from_us_alone(
    fields: Fields, peer: Peer
) -> None:
    got = read_by_h11(lines_for(fields, peer))

    # Other spellings are dropped, whoever sends them.
    told = {name.lower(): value for name, value in fields if name.lower() in IDENTITY}
    identity = [(name.lower(), value) for name, value in got if is_ours(name)]
    by_name = dict(identity)
    assert len(by_name) == len(identity)
    assert by_name[b"x-request-id"] == b"id-1"
    assert by_name[b"x-forwarded-for"].split(b", ")[-1] == peer.address
    if peer.is_trusted:
        assert {name for name, value in told.items() if value} - by_name.keys() <= {PREFIX}
    else:
        shown = {b"x-forwarded-client-cert": peer.certificate} if peer.certificate else {}
        assert by_name == shown | {
            b"x-request-id": b"id-1",
            b"x-forwarded-for": peer.address,
            b"x-real-ip": peer.address,
            b"x-forwarded-proto": b"https",
            b"x-forwarded-host": b"api.example.com",
        }


@given(answer_field_lists, framing_fields)
def test_exactly_the_end_to_end_fields_of_an_answer_cross(fields: Fields, framing: Fields) -> None:
    stopped = HOP_BY_HOP | {b"x-request-id"} | (names_in_connection(fields) - PROTECTED)

    lines = lines_of([*fields[:2], *framing, *fields[2:]])

    head = read_answer(200, b"OK", lines, b"GET")

    received = [*fields[:2], *framing, *fields[2:]]
    assert [one for one in received if one[0].lower() not in stopped] == head.fields
    assert head.has_date == (b"date" in {name.lower() for name, _ in head.fields})
    assert head.keeps_alive == (
        b"close" not in names_in_connection(fields) and not head.ends_with_connection
    )
    assert head.ends_with_connection == (not framing)


@given(field_lists)
def test_exactly_the_end_to_end_fields_of_an_interim_answer_cross(fields: Fields) -> None:
    left_out = {b"content-length", b"x-request-id"}
    stopped = HOP_BY_HOP | left_out | (names_in_connection(fields) - PROTECTED)

    assert [one for one in fields if one[0].lower() not in stopped] == interim_fields(fields)


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from([b"Content-Length", b"content-length"]),
                st.sampled_from([b"5", b"05", b"0", b"+5", b"5, 5", b"5_0", b"", b"\xd9\xa5"]),
            ),
            st.tuples(
                st.sampled_from([b"Transfer-Encoding", b"TRANSFER-ENCODING"]),
                st.sampled_from([b"chunked", b"Chunked", b"gzip", b"gzip, chunked", b""]),
            ),
        ),
        max_size=3,
    ),
    st.sampled_from([200, 204, 304, 500]),
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_a_body_is_framed_in_at_most_one_way(fields: Fields, status: int, method: bytes) -> None:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value.lower() for name, value in fields if name.lower() != b"content-length"]
    is_clear = (
        len(fields) <= 1
        and all(value.isdigit() for value in lengths)
        and all(value == b"chunked" for value in codings)
    )

    try:
        head = read_answer(status, b"", lines_of(fields), method)
    except FramingError:
        assert not is_clear
        return

    assert is_clear
    assert head.has_body == (method != b"HEAD" and status not in {204, 304})
    assert head.ends_with_connection == (head.has_body and not fields)
    assert head.length == (int(lengths[0]) if lengths and status != 204 else None)


@given(field_lists)
def test_trailers_hold_nothing_that_frames_routes_or_identifies(fields: Fields) -> None:
    got = trailer_fields(fields)

    crossed = {name.lower() for name, _ in got}
    assert not crossed & (HOP_BY_HOP | ACCEPTED | {b"set-cookie", b"cookie", b"authorization"})
    assert not any(is_of_a_stranger(name, UNKNOWN_PEER) for name in crossed)
    assert all(name.startswith(b"x-") or name == b"etag" for name in crossed)
    assert [one for one in fields if one in got] == got
