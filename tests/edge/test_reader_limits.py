"""How much a client may send, and what is read behind a request: the next one, or nothing."""

from __future__ import annotations

import tracemalloc
from copy import deepcopy

import pytest

from gateway.core.failure import Failure
from gateway.edge.reader import ReaderLimits
from tests.fakes.reading import (
    CHUNKED,
    GET,
    POST,
    ROOMY,
    Reading,
    RecordingReceiver,
    asking,
    each_byte,
    read,
    read_both_ways,
    reader_for,
    with_field,
)

BAD = Failure.BAD_REQUEST
KIB = 1024


# --- Limits --------------------------------------------------------------------------------------

SMALL = ReaderLimits(max_request_line_bytes=40, max_header_size_bytes=60, max_header_fields=3)


def head_of(line_bytes: int, fields_bytes: int) -> bytes:
    """Write a head whose request line and whose field lines are just so long."""
    line = b"GET /%b HTTP/1.1" % (b"x" * (line_bytes - 14))
    fields = b"Host: a\r\nX:%b\r\n" % (b"y" * (fields_bytes - 13))
    assert (line_bytes, fields_bytes) == (len(line), len(fields))
    return line + b"\r\n" + fields + b"\r\n"


@pytest.mark.parametrize("limits", [SMALL, ROOMY])
def test_a_request_line_may_be_as_long_as_the_limit_and_no_longer(limits: ReaderLimits) -> None:
    longest = limits.max_request_line_bytes

    assert read(GET).only.host == read_both_ways(head_of(longest, 30), limits).only.host
    assert Reading(wrong=Failure.URI_TOO_LONG) == read_both_ways(head_of(longest + 1, 30), limits)


@pytest.mark.parametrize("limits", [SMALL, ROOMY])
def test_header_lines_may_be_as_large_as_the_limit_and_no_larger(limits: ReaderLimits) -> None:
    largest = limits.max_header_size_bytes
    too_large = Reading(wrong=Failure.HEADERS_TOO_LARGE)

    for line_bytes in (20, limits.max_request_line_bytes):
        assert read_both_ways(head_of(line_bytes, largest), limits).only.refusal is None
        assert too_large == read_both_ways(head_of(line_bytes, largest + 1), limits)


@pytest.mark.parametrize("count", [3, 4])
def test_there_may_be_as_many_fields_as_the_limit_and_no_more(count: int) -> None:
    reading = read_both_ways(with_field(b"\r\n".join([b"A: b"] * (count - 1))), SMALL)

    expected = None if count == 3 else Failure.HEADERS_TOO_LARGE
    assert expected is reading.wrong


def test_white_space_counts_too() -> None:
    reading = read_both_ways(with_field(b"A:" + b" " * 100 + b"b"), SMALL)

    assert Reading(wrong=Failure.HEADERS_TOO_LARGE) == reading


@pytest.mark.parametrize(
    ("endless", "failure"),
    [
        (b"GET /", Failure.URI_TOO_LONG),
        (b"GET / HTTP/1.1\r\nA", Failure.HEADERS_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nA: ", Failure.HEADERS_TOO_LARGE),
        (b"GET /" + b"x" * 100 + b" HTTP/1.1\r\nA: ", Failure.URI_TOO_LONG),
    ],
)
def test_a_head_without_end_is_refused_at_the_limit(endless: bytes, failure: Failure) -> None:
    assert Reading(wrong=failure) == read_both_ways(endless + b"x" * 200, SMALL)


def test_fields_without_end_are_refused_at_the_limit() -> None:
    assert Failure.HEADERS_TOO_LARGE is read_both_ways(with_field(b"A:b\r\n" * 100), SMALL).wrong


@pytest.mark.parametrize("trailers", [b"A: " + b"x" * 200, b"A: b\r\n" * 50, b"A:b\r\n" * 4])
def test_trailers_are_bounded_like_header_fields(trailers: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    reading = read_both_ways(head + b"0\r\n" + trailers + b"\r\n\r\n", SMALL)

    assert (Failure.HEADERS_TOO_LARGE, None) == (reading.wrong, reading.requests[0].trailers)


def test_trailers_may_be_as_large_as_the_limit_and_no_larger() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"

    fits = read_both_ways(head + b"A:%b\r\n\r\n" % (b"x" * 56), SMALL)
    does_not = read_both_ways(head + b"A:%b\r\n\r\n" % (b"x" * 60), SMALL)

    assert 1 == len(fits.only.trailers or [])
    assert Failure.HEADERS_TOO_LARGE is does_not.wrong


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"GET /", id="target"),
        pytest.param(b"GET / HTTP/1.1\r\nA", id="name"),
        pytest.param(b"GET / HTTP/1.1\r\nA: ", id="value"),
        pytest.param(CHUNKED + b"3;", id="chunk extension"),
        pytest.param(CHUNKED + b"0\r\nA: ", id="trailer"),
    ],
)
def test_what_has_no_end_is_refused_before_it_costs_memory(endless: bytes) -> None:
    piece = b"x" * (32 * KIB)
    receiver = RecordingReceiver()
    reader = reader_for(receiver)
    wrong = reader.feed(endless)

    tracemalloc.start()
    for _ in range(64 * KIB * KIB // len(piece)):  # 64 MiB, if it were all taken
        if wrong is not None:
            break
        wrong = reader.feed(piece)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert wrong is not None
    assert peak_bytes < 512 * KIB


# --- One request after the other -----------------------------------------------------------------


def test_pipelined_requests_are_read_in_order() -> None:
    first, second, third = asking(b"/1"), CHUNKED + b"1\r\nx\r\n0\r\n\r\n", asking(b"/3")

    reading = read_both_ways(first + second + third)

    assert [b"/1", b"/", b"/3"] == [request.path for request in reading.requests]
    assert [b"", b"x", b""] == [request.body for request in reading.requests]
    assert all(request.stays for request in reading.requests)


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        (b"X: y", True),
        (b"Connection: keep-alive", True),
        (b"Connection: close", False),
        (b"Connection: Close", False),
        (b"Connection: close, keep-alive", False),
        (b"Connection: keep-alive\r\nConnection: close", False),
        (b"Connection: x, close", False),
    ],
)
def test_http_1_1_stays_unless_it_says_close(line: bytes, stays: bool) -> None:  # noqa: FBT001 -- a table
    assert stays is read_both_ways(with_field(line)).only.stays


@pytest.mark.parametrize(("line", "stays"), [(b"X: y", False), (b"Connection: keep-alive", True)])
def test_http_1_0_closes_unless_it_says_keep_alive(line: bytes, stays: bool) -> None:  # noqa: FBT001 -- a table
    data = b"GET / HTTP/1.0\r\n" + line + b"\r\n\r\n"

    assert stays is read_both_ways(data).only.stays
    assert 1 + stays == len(read_both_ways(data + data).requests)


@pytest.mark.parametrize("junk", [GET, b"\r\n", b"junk", b"\x16\x03\x01"])
def test_nothing_is_read_behind_a_request_that_closes(junk: bytes) -> None:
    closing = with_field(b"Connection: close")

    assert read(closing) == read_both_ways(closing + junk)


def test_nothing_is_read_behind_a_request_that_is_refused() -> None:
    refused = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"

    assert read(refused) == read_both_ways(refused + b"abc" + GET)


def test_nothing_is_read_once_something_was_wrong() -> None:
    receiver = RecordingReceiver()
    reader = reader_for(receiver)

    assert reader.feed(b"junk") is not None
    assert reader.feed(GET) is None
    assert Reading() == receiver.reading


def test_what_follows_a_request_is_held_until_it_is_answered() -> None:
    receiver = RecordingReceiver()
    receiver.holds = True
    reader = reader_for(receiver)

    reader.feed(GET + GET[:10])
    reader.feed(GET[10:] + b"junk")
    assert 1 == len(receiver.reading.requests)
    assert 31 == reader.held_bytes
    assert "<RequestReader HEAD, 31 bytes held>" == repr(reader)

    receiver.holds = False
    assert reader.go_on() is None
    assert 2 == len(receiver.reading.requests)
    assert (BAD, "Invalid method encountered") == reader.go_on()
    assert not reader.held_bytes


def test_one_request_is_read_at_a_time_however_many_came() -> None:
    receiver = RecordingReceiver()
    reader = reader_for(receiver)

    reader.feed(GET * 1000)

    for count in range(1, 1000):
        assert count == len(receiver.reading.requests)
        assert (1000 - count) * len(GET) == reader.held_bytes
        assert reader.go_on() is None
    assert not reader.held_bytes


def test_a_body_and_one_more_request_are_read_at_a_time() -> None:
    receiver = RecordingReceiver()
    reader = reader_for(receiver)
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"

    reader.feed(post + b"ab")
    reader.feed(b"c" + GET + GET)

    assert [b"POST", b"GET"] == [one.method for one in receiver.reading.requests]
    assert len(GET) == reader.held_bytes


def test_of_small_chunks_a_share_is_read_at_a_time() -> None:
    receiver = RecordingReceiver()
    reader = reader_for(receiver)
    post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

    reader.feed(post + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n" + GET)
    sizes = [len(receiver.reading.requests[0].body)]
    assert reader.is_in_body
    while reader.held_bytes:
        assert reader.go_on() is None
        sizes.append(len(receiver.reading.requests[0].body))

    assert len(sizes) > 4
    assert 5000 == sizes[-1]
    assert [b"POST", b"GET"] == [one.method for one in receiver.reading.requests]
    assert not reader.is_in_body


@pytest.mark.parametrize("size_bytes", range(1, len(GET)))
def test_a_head_may_be_cut_anywhere(size_bytes: int) -> None:
    """One of three bytes was once taken for whole: a search that finds nothing says -1."""
    assert read(GET) == read(GET[:size_bytes], GET[size_bytes:])


def test_a_head_begins_with_its_first_byte_and_ends_with_its_last() -> None:
    reader = reader_for(RecordingReceiver())

    seen = []
    for byte in each_byte(b"\r\n" + GET):
        reader.feed(byte)
        seen.append(bool(reader.begun))

    assert [False] * 2 + [True] * (len(GET) - 1) + [False] == seen


LONG_HEAD = b"GET /long HTTP/1.1\r\nHost: a\r\nCookie: %b\r\n\r\n" % (b"x" * 1024)
LONG_CHUNKS = b"1\r\nx\r\n" * 200 + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("before", "long"),
    [
        (b"", LONG_HEAD),
        (GET[:10], b"a" * 1025),
        (CHUNKED, LONG_CHUNKS),
        (POST + b"Content-Length: 5000\r\n\r\n", b"x" * 5000),
    ],
    ids=["head", "rest of a head", "chunks", "body"],
)
def test_a_long_read_is_held_as_it_is_when_the_time_of_the_turn_is_over(
    before: bytes, long: bytes
) -> None:
    receiver, prompt = RecordingReceiver(), RecordingReceiver()
    reader, other = reader_for(receiver), reader_for(prompt)
    for one in (reader, other):
        one.feed(before)
    told = deepcopy(receiver.reading)

    receiver.is_late = True
    assert reader.feed(long) is None
    assert len(long) == reader.held_bytes
    assert told == receiver.reading
    wrong = reader.go_on()  # whoever calls this has time

    assert other.feed(long) == wrong
    assert prompt.reading == receiver.reading
    assert not reader.held_bytes


def test_long_chunks_behind_their_head_are_held_when_the_time_of_the_turn_is_over() -> None:
    receiver = RecordingReceiver()
    reader = reader_for(receiver)

    receiver.is_late = True
    reader.feed(CHUNKED + LONG_CHUNKS)
    assert len(LONG_CHUNKS) == reader.held_bytes
    assert reader.is_in_body
    reader.go_on()

    assert b"x" * 200 == receiver.reading.only.body


def test_short_reads_are_looked_at_whatever_the_time_is() -> None:
    receiver = RecordingReceiver()
    reader = reader_for(receiver)

    receiver.is_late = True
    for piece in (GET, GET[:10], GET[10:], CHUNKED + b"1\r\nx\r\n", b"0\r\n\r\n"):
        assert reader.feed(piece) is None
        assert not reader.held_bytes

    assert 3 == len(receiver.reading.requests)
    assert 0 == receiver.late_count
