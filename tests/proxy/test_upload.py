"""A request body on its way: what stands on the wire is what came, and nothing ends it early."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.failure import Failure
from gateway.core.message import Fields
from gateway.proxy.upload import Upload

CHUNKS = st.lists(st.binary(max_size=20), max_size=8)
PLENTY = 1 << 20


def on_the_wire(framing: bytes, body: bytes) -> tuple[bytes, Fields, bool]:
    """Read a body as an instance would: its bytes, its trailers, and whether it is whole."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"PUT / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n" + body)
    assert isinstance(parser.next_event(), h11.Request)
    read = b""
    while isinstance(event := parser.next_event(), h11.Data):
        read += event.data
    if not isinstance(event, h11.EndOfMessage):
        return read, [], False
    return read, list(event.headers.raw_items()), True


@given(chunks=CHUNKS)
def test_a_chunked_body_is_read_as_it_came_and_not_before_its_end(chunks: list[bytes]) -> None:
    upload = Upload(None, buffer_bytes=PLENTY)

    wire = b"".join(upload.add(chunk) for chunk in chunks)
    before = on_the_wire(b"Transfer-Encoding: chunked", wire)
    assert upload.end([(b"Checksum", b"1"), (b"Content-Length", b"3")])
    after = on_the_wire(b"Transfer-Encoding: chunked", wire + upload.last_bytes)

    assert (b"".join(chunks), [], False) == before
    assert (b"".join(chunks), [(b"Checksum", b"1")], True) == after
    assert sum(map(len, chunks)) == upload.received_bytes


@given(chunks=CHUNKS.filter(any))
def test_a_body_with_a_length_stands_as_it_came(chunks: list[bytes]) -> None:
    length = sum(map(len, chunks))
    upload = Upload(length, buffer_bytes=PLENTY)

    wire = b"".join(upload.add(chunk) for chunk in chunks)

    assert upload.end([(b"Checksum", b"1")])
    assert b"".join(chunks) == wire + upload.last_bytes
    assert (wire, [], True) == on_the_wire(b"Content-Length: %d" % length, wire)


def framed(length: int | None, body: bytes) -> bytes:
    """Write a body as one piece."""
    return body if length is not None or not body else b"%x\r\n%b\r\n" % (len(body), body)


@pytest.mark.parametrize("length", [None, 60])
@given(chunks=CHUNKS, places=st.lists(st.integers(0, 8), max_size=3))
def test_a_replay_is_what_was_sent(
    length: int | None, chunks: list[bytes], places: list[int]
) -> None:
    """Its pieces come in one: what they were cut into means nothing."""
    upload = Upload(length, buffer_bytes=PLENTY)
    wire, body = b"", b""

    for place, chunk in enumerate(chunks):
        if place in places:
            assert upload.so_far() == framed(length, body)
        wire += upload.add(chunk)
        body += chunk
    upload.end([(b"Checksum", b"1")])

    assert upload.so_far() == upload.so_far() == framed(length, body) + upload.last_bytes
    if length is None:
        sent = on_the_wire(b"Transfer-Encoding: chunked", wire + upload.last_bytes)
        assert sent == on_the_wire(b"Transfer-Encoding: chunked", upload.so_far())
    else:
        assert wire == upload.so_far()


@given(length=st.integers(0, 10), received=st.integers(0, 20))
def test_more_or_less_than_was_declared_is_noticed(length: int, received: int) -> None:
    upload = Upload(length, buffer_bytes=PLENTY)
    upload.add(b"x" * received)

    assert (received > length) == (upload.problem() is not None)
    assert (received == length) == upload.end([])


def test_more_than_the_route_takes_is_noticed_as_it_comes() -> None:
    upload = Upload(None, buffer_bytes=PLENTY, max_bytes=5)
    upload.add(b"12345")
    assert None is upload.problem()

    upload.add(b"6")

    assert (Failure.BODY_TOO_LARGE, "the body is over 5 bytes") == upload.problem()


def test_what_is_kept_is_let_go_when_it_is_more_than_the_buffer_and_was_sent() -> None:
    upload = Upload(None, buffer_bytes=4)
    upload.add(b"1234")
    assert not upload.is_over_buffer
    assert b"4\r\n1234\r\n" == upload.so_far()
    upload.add(b"5")
    assert upload.is_over_buffer
    assert "<Upload 5 of None, 5 kept>" == repr(upload)

    sent = upload.so_far()

    assert b"5\r\n12345\r\n" == sent
    assert not upload.is_kept
    assert not upload.is_over_buffer
    assert "<Upload 5 of None, not kept>" == repr(upload)


def test_what_is_not_kept_is_still_counted_and_framed() -> None:
    upload = Upload(None, buffer_bytes=4)
    upload.forget()

    assert b"6\r\nlonger\r\n" == upload.add(b"longer")
    assert 6 == upload.received_bytes
    assert not upload.is_over_buffer


@pytest.mark.parametrize(("length", "expected"), [(4, True), (5, False)])
def test_a_length_foretells_whether_all_of_it_stays_kept(length: int, *, expected: bool) -> None:
    upload = Upload(length, buffer_bytes=4)

    assert expected is upload.stays_kept


def test_a_chunked_body_may_grow_over_the_buffer_until_it_has_ended() -> None:
    upload = Upload(None, buffer_bytes=4)
    upload.add(b"1234")
    assert not upload.stays_kept

    upload.end([])

    assert upload.stays_kept
    upload.forget()
    assert not upload.stays_kept
