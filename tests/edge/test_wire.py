"""How answers look on the wire, and that h11, which shares no code with us, reads them so."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.message import AnswerHead, Fields, lines_of
from gateway.edge.wire import (
    Framing,
    chunk_bytes,
    framing_of,
    head_bytes,
    interim_bytes,
    last_chunk,
)

KEEP_ALIVE = b"\r\nConnection: keep-alive"


def head_with(
    status: int = 200,
    *,
    length: int | None = None,
    has_body: bool = True,
    fields: Fields | None = None,
) -> AnswerHead:
    fields = list(fields or [])
    if length is not None:
        fields.append((b"Content-Length", b"%d" % length))
    head = AnswerHead(status, b"", lines_of(fields))
    head.length, head.has_body = length, has_body
    return head


@pytest.mark.parametrize(
    ("head", "in_1_1", "in_1_0"),
    [
        (head_with(length=5), Framing.LENGTH, Framing.LENGTH),
        (head_with(length=0), Framing.LENGTH, Framing.LENGTH),
        (head_with(), Framing.CHUNKED, Framing.CLOSE),
        (head_with(has_body=False), Framing.NONE, Framing.NONE),
        (head_with(has_body=False, length=5), Framing.NONE, Framing.NONE),
        (head_with(101, has_body=False), Framing.TUNNEL, Framing.TUNNEL),
    ],
)
def test_the_framing_is_what_the_client_can_read(
    head: AnswerHead, in_1_1: Framing, in_1_0: Framing
) -> None:
    assert in_1_1 is framing_of(head, is_http10=False)
    assert in_1_0 is framing_of(head, is_http10=True)


def test_a_head_has_its_status_its_fields_its_framing_and_connection_in_this_order() -> None:
    head = AnswerHead(200, b"Fine", lines_of([(b"b", b"1"), (b"A", b""), (b"b", b"2")]))

    assert (
        b"HTTP/1.1 200 Fine\r\nb: 1\r\nA: \r\nb: 2\r\nTransfer-Encoding: chunked\r\n"
        b"X-Request-Id: id\r\nConnection: close\r\n\r\n"
    ) == head_bytes(head, Framing.CHUNKED, b"id", b"\r\nConnection: close")


def test_a_head_without_a_body_still_tells_the_length_that_it_would_have() -> None:
    head = head_with(length=3, has_body=False)

    assert b"HTTP/1.1 200 \r\nContent-Length: 3\r\nX-Request-Id: id\r\n\r\n" == head_bytes(
        head, Framing.NONE, b"id"
    )


def test_an_interim_answer_has_fields_and_no_framing() -> None:
    assert b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" == interim_bytes(
        103, [(b"Link", b"</a>")]
    )
    assert b"HTTP/1.1 199 \r\n\r\n" == interim_bytes(199, [])


def test_chunks_have_their_size_in_front() -> None:
    assert b"10\r\n0123456789abcdef\r\n" == chunk_bytes(b"0123456789abcdef")
    assert b"0\r\n\r\n" == last_chunk([])
    assert b"0\r\nA: b\r\na: c\r\n\r\n" == last_chunk([(b"A", b"b"), (b"a", b"c")])


# --- Laws ----------------------------------------------------------------------------------------

NAMES = st.text("abcXYZ019-_!~", min_size=1, max_size=8).filter(
    lambda name: name.lower() not in {"te", "upgrade"}
)
VALUES = st.text(
    "".join(map(chr, [9, 32, *range(0x21, 0x7F), *range(0x80, 0x100)])), max_size=12
).map(lambda text: text.encode("latin-1").strip(b" \t"))
FIELDS = st.lists(st.tuples(NAMES.map(str.encode), VALUES), max_size=5)
STATUSES = st.integers(200, 599).filter(lambda status: status not in {204, 304})
REASONS = st.text("abc \t\xe9~", max_size=8).map(lambda text: text.encode("latin-1").strip())
BODIES = st.lists(st.binary(min_size=1, max_size=20), max_size=4)


def read_by_h11(raw: bytes, *, method: bytes = b"GET") -> tuple[h11.Response, bytes, Fields]:
    """Let h11 read the answer to `method` to its end, and after that nothing."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(raw)
    head = parser.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            parser.receive_data(b"")  # the end of the connection
            continue
        assert isinstance(event, h11.Data)
        body += event.data
    assert b"" == parser.trailing_data[0]
    return head, body, list(event.headers)


@given(
    status=STATUSES,
    reason=REASONS,
    fields=FIELDS,
    pieces=BODIES,
    trailers=FIELDS,
    has_length=st.booleans(),
    is_http10=st.booleans(),
)
def test_h11_reads_what_is_written(
    *,
    status: int,
    reason: bytes,
    fields: Fields,
    pieces: list[bytes],
    trailers: Fields,
    has_length: bool,
    is_http10: bool,
) -> None:
    length = len(b"".join(pieces)) if has_length else None
    head = head_with(status, length=length, fields=fields)
    head.reason = reason
    framing = framing_of(head, is_http10=is_http10)
    connection = KEEP_ALIVE if framing is not Framing.CLOSE else b""
    raw = head_bytes(head, framing, b"id", connection)
    if framing is Framing.CHUNKED:
        raw += b"".join(map(chunk_bytes, pieces)) + last_chunk(trailers)
    else:
        raw += b"".join(pieces)

    read, body, got_trailers = read_by_h11(raw)

    assert (status, reason, b"".join(pieces)) == (read.status_code, read.reason, body)
    assert [
        *((name.lower(), value) for name, value in fields),
        (b"x-request-id", b"id"),
    ] == [
        field
        for field in read.headers
        if field[0] not in {b"content-length", b"transfer-encoding", b"connection"}
    ]
    if framing is Framing.CHUNKED:
        assert [(name.lower(), value) for name, value in trailers] == got_trailers


@given(st.sampled_from([200, 204, 304]), FIELDS, st.none() | st.integers(0, 9))
def test_h11_expects_no_body_where_there_is_none(
    status: int, fields: Fields, length: int | None
) -> None:
    head = head_with(
        status, length=None if status == 204 else length, has_body=False, fields=fields
    )

    read, body, _ = read_by_h11(head_bytes(head, Framing.NONE, b"id", KEEP_ALIVE), method=b"HEAD")

    assert (status, b"") == (read.status_code, body)
