"""Laws of the request reader, for any bytes and any cut.

1.  Any cut into reads gives the same requests and the same named failure.
2.  Whatever a client sends: requests or one failure of the client's, nothing behind it, and no
    exception.
3.  What is written on to the instance is parsed by h11, which shares no code with us, to the same
    method, target, body and end-to-end fields.
4.  A request that h11 writes is read to the same meaning.
"""

from __future__ import annotations

from itertools import pairwise

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.failure import VERDICTS, Failure, Side
from gateway.core.message import Request, lines_of
from gateway.core.paths import PathError, PathRules
from gateway.core.policy import PathPolicy
from gateway.edge.accept import read_target
from gateway.edge.reader import ReaderLimits
from gateway.proxy.target import closing_lines
from gateway.proxy.upload import Upload
from tests.fakes.engine import Stage, instance
from tests.fakes.reading import PEER, ReadRequest, each_byte, read

NORMALIZE = PathRules(PathPolicy()).normalize
SMALL = ReaderLimits(max_request_line_bytes=60, max_header_size_bytes=80, max_header_fields=4)
OFFER = b"Connection: Upgrade\r\nUpgrade: x\r\n"
LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"POST / HTTP/1.0", b"OPTIONS * HTTP/1.1"),
        *(b"GET http://b/c HTTP/1.1", b"PUT /../%2e%2e/x HTTP/1.1", b"HEAD //x HTTP/1.1"),
        *(b"GET / HTTP/2.0", b"GET / RTSP/1.0", b"get / HTTP/1.1", b"CONNECT b:80 HTTP/1.1"),
        *(b"TRACE /", b"GET  / HTTP/1.1", b"POST /" + b"x" * 70 + b" HTTP/1.1", b""),
    ]
)
FIELD_LINES = st.sampled_from(
    [
        *(b"Host: a", b"host: b:80", b"Host:", b"A: b", b"a: ", b"A : b", b"A: b\rc", b" folded"),
        *(b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: +3", b"Expect: x"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"TE: trailers"),
        *(b"Connection: close", b"Connection: keep-alive", b"Connection: X, A", b"Upgrade: x"),
        *(b"Connection: Upgrade\r\nUpgrade: h2c", b"X-Forwarded-For: 1.2.3.4", b"B:" + b" " * 90),
    ]
)
BODY_PIECES = st.sampled_from(
    [
        *(b"abc", b"3\r\nabc\r\n", b"3;x=y\r\nabc\r\n", b"0\r\n", b"0\r\n\r\n", b"T: u\r\n\r\n"),
        *(b"\r\n", b"\n", b"\r", b"\0", b"ffffffffffffffff\r\n", b"1" * 40, b"3;" + b"x" * 300),
    ]
)
GOOD_HEADS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + OFFER + b"\r\n",
    ]
)
HEADS = GOOD_HEADS | st.builds(
    lambda line, lines: b"\r\n".join([line, b"Host: a", *lines, b"", b""]),
    LINES,
    st.lists(FIELD_LINES, max_size=4),
)
MESSAGES = st.builds(
    lambda head, pieces: head + b"".join(pieces),
    HEADS,
    st.lists(BODY_PIECES | st.binary(min_size=1, max_size=4), max_size=4),
)
STREAMS = st.lists(MESSAGES, max_size=4).map(b"".join)
CUTS = st.sets(st.integers(1, 400), max_size=8)


def cut(raw: bytes, places: set[int]) -> list[bytes]:
    """Cut at these places."""
    edges = sorted({0, len(raw), *(place for place in places if place < len(raw))})
    return [raw[start:end] for start, end in pairwise(edges)]


@given(STREAMS, CUTS)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET", {46})
@example(b"GET /" + b"x" * 70 + b"\x7f HTTP/1.1\r\n\r\n", {61})
@example(b"GET /\nA: b\r\nC: " + b"d" * 140, {8})  # HTTP/0.9, found by fuzzing
def test_any_cut_gives_the_same_requests_and_the_same_failure(raw: bytes, places: set[int]) -> None:
    for limits in (SMALL, ReaderLimits()):
        at_once = read(raw, limits=limits)

        assert at_once == read(*cut(raw, places), limits=limits)
        assert at_once == read(*each_byte(raw), limits=limits)


@given(STREAMS | st.binary(max_size=200))
def test_whatever_comes_is_a_request_or_a_failure_of_the_clients(raw: bytes) -> None:
    reading = read(raw, limits=SMALL)

    for one in reading.requests[:-1]:
        assert one.refusal is None
        assert one.stays
        assert one.trailers is not None
    if reading.wrong is not None:
        assert VERDICTS[reading.wrong].side is Side.CLIENT
        assert all(one.refusal is None for one in reading.requests)
    if reading.verdict is not None:
        assert reading.verdict is Failure.NOT_IMPLEMENTED or (
            VERDICTS[reading.verdict].side is Side.CLIENT
        )


# --- What goes on to the instance ----------------------------------------------------------------

TOKENS = st.text("abcXYZ019-_!#$%&'*+.^`|~", min_size=1, max_size=8).map(str.encode)
VALUES = st.text(
    "".join(map(chr, [9, 32, *range(0x21, 0x7F), *range(0x80, 0x100)])), max_size=12
).map(lambda text: text.encode("latin-1").strip(b" \t"))
STEERING = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"),
    *(b"host", b"content-length", b"via", b"x-request-id", b"max-forwards", b"expect"),
}
PLAIN_FIELDS = st.lists(
    st.tuples(TOKENS.filter(lambda name: name.lower() not in STEERING), VALUES), max_size=5
)
PATHS = st.text("abc/.%2eF;=&+~-_", max_size=12).map(lambda text: b"/" + text.encode())
QUERIES = st.text("ab?=&%/;+", max_size=8).map(lambda text: b"?" + text.encode() if text else b"")
BODIES = st.none() | st.lists(st.binary(min_size=1, max_size=20), max_size=4)
METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"PROPFIND"])


def forwarded(stage: Stage, one: ReadRequest) -> bytes:
    """Write what an instance gets for this request, as an Exchange does."""
    request = Request(one.method, NORMALIZE(one.path), one.query, b"", one.host)
    request.length, request.peer, request.request_id = one.length, PEER, b"id"
    request.crossing = one.crossing
    closing = closing_lines(request, stage.engine.via)
    raw = stage.engine.targets[0].head(request, instance("a"), closing)
    if one.length != 0:
        upload = Upload(one.length, buffer_bytes=0)
        raw += upload.add(one.body)
        assert upload.end(one.trailers or [])
        raw += upload.last_bytes
    return raw


def read_by_h11(raw: bytes) -> tuple[h11.Request, bytes]:
    """Let h11 read one request to its end; nothing may be behind it."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(raw)
    head = parser.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += event.data
    assert (b"", False) == parser.trailing_data
    return head, body


def written_by_h11(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], body: list[bytes] | None
) -> bytes:
    writer = h11.Connection(h11.CLIENT)
    framed = [(b"Transfer-Encoding", b"chunked")] if body is not None else []
    head = h11.Request(method=method, target=target, headers=[(b"Host", b"a"), *framed, *fields])
    raw = writer.send(head) or b""
    for piece in body or []:
        raw += writer.send(h11.Data(data=piece)) or b""
    return raw + (writer.send(h11.EndOfMessage()) or b"")


@given(STREAMS)
def test_what_goes_on_is_read_by_h11_to_the_same_meaning(raw: bytes) -> None:
    stage = Stage()
    for one in read(raw).requests:
        if one.refusal is not None or one.trailers is None or one.path == b"*":
            continue
        try:
            path = NORMALIZE(one.path)
        except PathError:
            continue  # the Exchange refuses it

        head, body = read_by_h11(forwarded(stage, one))

        assert (one.method, path + one.query) == (head.method, head.target)
        assert one.body == body
        assert 1 == [name for name, _ in head.headers].count(b"host")


@given(METHODS, PATHS, QUERIES, PLAIN_FIELDS, BODIES)
def test_what_h11_writes_is_read_to_the_same_meaning(
    method: bytes,
    path: bytes,
    query: bytes,
    fields: list[tuple[bytes, bytes]],
    body: list[bytes] | None,
) -> None:
    raw = written_by_h11(method, path + query, fields, body)

    one = read(raw).only

    assert (method, path, query, b"".join(body or [])) == (
        *(one.method, one.path, one.query),
        one.body,
    )
    assert fields == [
        (name, value.strip(b" \t")) for name, value in one.fields if name.lower() not in STEERING
    ]
    assert (one.refusal, one.trailers, one.stays) == (None, [], True)


@given(PATHS, PLAIN_FIELDS)
def test_end_to_end_fields_cross_byte_for_byte(
    path: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    one = read(written_by_h11(b"GET", b"/", fields, None)).only

    head, _ = read_by_h11(forwarded(Stage(), one))

    sent = [(name.lower(), value) for name, value in fields]
    arrived = [field for field in head.headers if field in sent]
    assert sent == arrived


# --- Targets -------------------------------------------------------------------------------------


@given(st.binary(max_size=20).map(lambda rest: b"http://" + rest) | st.binary(max_size=20))
@example(b"http://a@b/c")
@example(b"http://a:1@b/c")
def test_a_url_is_taken_apart_as_by_another_parser_or_refused(target: bytes) -> None:
    request = Request(b"GET", b"", b"", lines_of([(b"Host", b"a")]), b"a")
    try:
        refusal = read_target(request, target)
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return

    if refusal is None and not target.startswith(b"/"):
        assert url.userinfo is None
        assert request.host.strip(b"[").startswith(url.host)
        if url.port:
            assert url.port == int(request.host.rpartition(b":")[2])
        assert (url.path or b"/", url.query or b"") == (request.path, request.query[1:])


def test_the_failures_are_those_of_the_table() -> None:
    """The laws above would hold for a reader that refuses everything."""
    assert {Failure.BAD_REQUEST, None} == {read(b"x").wrong, read(b"GET / H").wrong}


@pytest.mark.parametrize("size_bytes", [1, 7, 8192])
def test_pieces_of_any_size_make_the_same_upload(size_bytes: int) -> None:
    body = bytes(range(256)) * 64
    raw = written_by_h11(b"POST", b"/", [], [body[:5000], body[5000:]])

    pieces = [raw[at : at + size_bytes] for at in range(0, len(raw), size_bytes)]

    assert body == read(*pieces).only.body
