"""The chunked coding: what it takes, what it refuses, and that a cut never matters."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.chunked import MOST_CHUNKS, ChunkedReader, TrailersError
from gateway.core.headers import FramingError
from gateway.core.message import Fields

Outcome = tuple[bytes, Fields | None, int | None]


def reader(*, max_bytes: int = 64, max_fields: int = 3) -> ChunkedReader:
    return ChunkedReader(max_trailer_bytes=max_bytes, max_trailer_fields=max_fields)


def read(*pieces: bytes) -> Outcome:
    """Give the body, the trailers and where it ended; what is not known yet is None.

    Raises FramingError.
    """
    chunks, body, at = reader(), bytearray(), 0
    for piece in pieces:
        end = chunks.feed(piece, 0, body.extend)
        at += end
        if chunks.is_over:
            return bytes(body), chunks.trailers, at
    return bytes(body), None, None


def outcome(*pieces: bytes) -> Outcome | str:
    try:
        return read(*pieces)
    except TrailersError:
        return "trailers"
    except FramingError:
        return "framing"


@pytest.mark.parametrize(
    ("raw", "body", "trailers"),
    [
        (b"0\r\n\r\n", b"", []),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", []),
        (b"0A\r\n0123456789\r\n00\r\n\r\n", b"0123456789", []),
        (b'1;a;b=c;d="e;\\"\\\\ "\r\nx\r\n0;last\r\n\r\n', b"x", []),
        (b"0\r\nA: b\r\nC:d \r\n\r\n", b"", [(b"A", b"b"), (b"C", b"d")]),
    ],
)
def test_a_body_is_read_to_its_end_and_no_further(
    raw: bytes, body: bytes, trailers: Fields
) -> None:
    assert (body, trailers, len(raw)) == read(raw + b"next")


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b" 1\r\n", b"1 \r\n"),
        *(b"1\n", b"1\r\r\n", b"1;\r\n", b"1;a=\r\n", b'1;a="\r\n"', b"1 ;a\r\n", b"1;\x01\r\n"),
        *(b"11111111111111111\r\n", b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\rx", b"1\r\na0\r\n"),
        *(b"0\r\nA\r\n\r\n", b"0\r\n A: b\r\n\r\n", b"0\r\nA : b\r\n\r\n", b"0\r\nA: b\n\r\n"),
        *(b"0\r\nA: \x00\r\n\r\n", b"0\r\n\n", b"0\r\nContent-length: 1\r\n\r\n"),
        *(b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"a" * 254),
    ],
)
def test_what_is_not_the_chunked_coding_is_refused(raw: bytes) -> None:
    assert "framing" == outcome(raw)


def test_nonsense_is_refused_before_its_line_ends() -> None:
    """An instance that sends it and waits must not be waited for."""
    assert "framing" == outcome(b"zz")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"0\r\n" + b"A: b\r\n" * 3 + b"\r\n", (b"", [(b"A", b"b")] * 3, 23)),
        (b"0\r\n" + b"A: b\r\n" * 4 + b"\r\n", "trailers"),
        (b"0\r\nA: " + b"b" * 59 + b"\r\n\r\n", (b"", [(b"A", b"b" * 59)], 69)),
        (b"0\r\nA: " + b"b" * 99, "trailers"),
    ],
    ids=["all", "too many", "all bytes", "too long"],
)
def test_trailers_have_limits(raw: bytes, expected: Outcome | str) -> None:
    assert expected == outcome(raw)


def test_its_repr_tells_where_it_stands() -> None:
    chunks = reader()

    chunks.feed(b"1\r\n", 0, lambda _: None)
    assert "<ChunkedReader DATA>" == repr(chunks)

    chunks.feed(b"a\r\n0\r\n\r\n", 0, lambda _: None)
    assert "<ChunkedReader over>" == repr(chunks)


def shares_of(chunks: ChunkedReader, data: bytes) -> tuple[list[bytes], list[int]]:
    """Feed all of it, a share at a time: what is told, and where each share ended."""
    told: list[bytes] = []
    ends = [0]
    while ends[-1] < len(data) and not chunks.is_over:
        ends.append(chunks.feed(data, ends[-1], told.append))
    return told, ends


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1;a=b\r\nx\r\n", b"01;a\r\nx\r\n"])
def test_of_many_small_chunks_a_share_is_read_at_a_time_and_told_in_one_piece(chunk: bytes) -> None:
    told, ends = shares_of(reader(), chunk * 10_000 + b"0\r\n\r\n")

    shares = [after - before for before, after in pairwise(ends)]
    assert len(told) in {len(shares), len(shares) - 1}, "one piece for each share with a body"
    assert max(shares) <= MOST_CHUNKS * len(chunk) + len(b"0\r\n\r\n")
    assert b"x" * 10_000 == b"".join(told)


def test_what_came_before_a_chunk_that_is_wrong_is_told() -> None:
    told: list[bytes] = []

    with pytest.raises(FramingError):
        reader().feed(b"1\r\na\r\n1\r\nb\r\nz\r\n", 0, told.append)

    assert [b"ab"] == told


def test_a_chunk_that_is_longer_than_it_says_is_refused_where_it_ends() -> None:
    told: list[bytes] = []

    with pytest.raises(FramingError):
        reader().feed(b"1\r\nab\r\n", 0, told.append)

    assert [b"a"] == told


# --- Laws ----------------------------------------------------------------------------------------

PARTS = st.sampled_from(
    [b"0", b"1", b"a", b"3", b";", b"=", b'"', b"\r\n", b"\r", b"\n", b"abc", b"A: b", b"x"]
)
STREAMS = st.lists(PARTS, max_size=14).map(b"".join) | st.binary(max_size=12)


def pieces_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({min(cut, len(raw)) for cut in cuts}), len(raw)]
    return [raw[a:b] for a, b in pairwise(bounds)]


@given(STREAMS, st.lists(st.integers(0, 20), max_size=5))
@example(b"3\r\nabc\r\n0\r\nA: b\r\n\r\nx", [1, 2, 4, 8, 9])
def test_a_cut_never_matters(raw: bytes, cuts: list[int]) -> None:
    assert outcome(raw) == outcome(*pieces_of(raw, cuts))


@given(STREAMS)
@example(b"3\r\nabc\r\n0\r\nA: b\r\n\r\n")
def test_h11_reads_the_same_body_or_is_stricter(raw: bytes) -> None:
    result = outcome(raw)
    if isinstance(result, str) or result[1] is None:
        return
    body, _, end = result
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.receive_data(raw[:end])
    assert isinstance(parser.next_event(), h11.Request)
    by_h11 = b""
    while isinstance(event := parser.next_event(), h11.Data):
        by_h11 += event.data

    assert isinstance(event, h11.EndOfMessage)
    assert body == by_h11


def test_a_line_may_be_cut_anywhere() -> None:
    """Behind the data, and inside a trailer."""
    whole = b"3\r\nabc\r\n0\r\nA: b\r\n\r\n"

    read_in_bytes = read(*(bytes([byte]) for byte in whole))

    assert read_in_bytes == (b"abc", [(b"A", b"b")], len(whole))
