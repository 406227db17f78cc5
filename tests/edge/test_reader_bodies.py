"""Strict reading of bodies: there is one place where each ends, or the request is refused."""

from __future__ import annotations

import pytest

from gateway.core.failure import Failure
from tests.fakes.reading import (
    CHUNKED,
    GET,
    POST,
    RecordingReceiver,
    read,
    read_both_ways,
    reader_for,
    with_field,
)

BAD = Failure.BAD_REQUEST
KIB = 1024


# --- Where the body ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(b"+5", b"-5", b"5_0", b"0x5", b"5,5", b"5, 5", b"5 5", b"5;", b"1e3", b"five"),
        *(b"", b"5\x0b", b"\xc2\xb5", b"\xd9\xa5", b"5\t"),
        *(b"9" * 19, b"18446744073709551615", b"18446744073709551616", b"9" * 400),
    ],
)
def test_a_content_length_that_is_not_plain_digits_is_refused(value: bytes) -> None:
    reading = read_both_ways(POST + b"Content-Length: " + value + b"\r\n\r\nbody!")

    assert BAD is reading.verdict


@pytest.mark.parametrize("value", [b"5", b"05", b"5 ", b"  5", b"\t5"])
def test_a_content_length_may_have_white_space_around_it(value: bytes) -> None:
    reading = read_both_ways(POST + b"Content-Length: " + value + b"\r\n\r\nbody!")

    assert (5, b"body!", []) == (
        reading.only.length,
        reading.only.body,
        reading.only.trailers,
    )


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0",
        b"Content-Length: 5\r\nTransfer-Encoding: identity",
    ],
)
def test_two_statements_about_the_length_are_refused(lines: bytes) -> None:
    reading = read_both_ways(POST + lines + b"\r\n\r\n5\r\nbody!\r\n0\r\n\r\n")

    assert BAD is reading.verdict


@pytest.mark.parametrize(
    "value",
    [
        *(b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"gzip", b"identity", b""),
        *(b"xchunked", b"chunkedx", b"chunked;q=1", b'"chunked"', b"chun ked", b"chunked\t"),
        *(b",chunked", b"chunked,", b"\x0bchunked", b"chunked\x00"),
        *(b"gzip\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: chunked"),
        b"chunked\r\nTransfer-Encoding: identity",
    ],
)
def test_any_transfer_coding_but_one_final_chunked_is_refused(value: bytes) -> None:
    reading = read_both_ways(
        POST + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nbody!\r\n0\r\n\r\n"
    )

    assert BAD is reading.verdict
    assert all(request.refusal for request in reading.requests), "it has begun on its way"


@pytest.mark.parametrize("value", [b"chunked", b" chunked ", b"Chunked", b"CHUNKED"])
def test_chunked_is_chunked_in_any_case(value: bytes) -> None:
    reading = read_both_ways(
        POST + b"Transfer-Encoding: " + value + b"\r\n\r\n5\r\nbody!\r\n0\r\n\r\n"
    )

    assert (None, b"body!", []) == (
        reading.only.length,
        reading.only.body,
        reading.only.trailers,
    )


def test_transfer_coding_in_http_1_0_is_refused() -> None:
    reading = read_both_ways(
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )

    assert BAD is reading.only.refusal


def test_a_body_may_come_with_any_method() -> None:
    reading = read_both_ways(
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )

    assert b"x" == reading.only.body


# --- Chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        *(b"0x3", b"3 ", b" 3", b"+3", b"-3", b"3_0", b"3,3", b"g", b"", b"3h", b"3\t", b"3 ;x"),
        *(b"fffffffffffffffff", b"10000000000000000", b"1" * 300),
        *(b"3;", b"3;\0", b"3;a\x01b", b"3;a\rb", b"3;a\nb", b'3;a="\r\n"', b"3;a=b\xff\x00"),
        *(b"3;" + b"x" * 300, b"3;x=" + b"y" * 300, b"3" + b";x" * 200, b"0" * 300 + b"3"),
    ],
)
def test_a_chunk_size_is_hexadecimal_and_its_extensions_are_few(size: bytes) -> None:
    reading = read_both_ways(CHUNKED + size + b"\r\nabc\r\n0\r\n\r\n")

    assert (BAD, b"") == (reading.wrong, reading.requests[0].body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="bare LF behind a size"),
        pytest.param(b"3\rabc\r\n0\r\n\r\n", id="bare CR behind a size"),
        pytest.param(b"3\r\nabc\n0\r\n\r\n", id="bare LF behind data"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="more data than its size"),
        pytest.param(b"3\r\nab\r\n0\r\n\r\n", id="less data than its size"),
        pytest.param(b"3\r\nabc0\r\n\r\n", id="no line end behind data"),
        pytest.param(b"3\r\nabc\r\n0\n\r\n", id="bare LF behind the last size"),
        pytest.param(b"3\r\nabc\r\n0\r\n\n", id="bare LF as the last line"),
        pytest.param(b"3\r\nabc\r\n0\r\nA: b\n\r\n", id="bare LF in trailers"),
        pytest.param(b"3\r\nabc\r\n0\r\nA : b\r\n\r\n", id="space before the colon of a trailer"),
        pytest.param(b"3\r\nabc\r\n0\r\nA: b\r\n c\r\n\r\n", id="folded trailer"),
        pytest.param(b"3\r\nabc\r\n0\r\nA: \0\r\n\r\n", id="NUL in a trailer"),
        pytest.param(b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n", id="length as a trailer"),
        pytest.param(b"3\r\nabc\r\n0\r\nTransfer-Encoding: x\r\n\r\n", id="coding as a trailer"),
    ],
)
def test_chunks_and_trailers_keep_to_the_rules_to_their_end(body: bytes) -> None:
    reading = read_both_ways(CHUNKED + body)

    assert (BAD, None) == (reading.wrong, reading.requests[0].trailers)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nbody!\r\n0\r\n\r\n",
        b"1\r\nb\r\n4\r\nody!\r\n0\r\n\r\n",
        b"00000005\r\nbody!\r\n000\r\n\r\n",
        b'5;a\r\nbody!\r\n0;b="c;\\"d"\r\n\r\n',
        b"5;a=b;c=d\r\nbody!\r\n0\r\n\r\n",
    ],
)
def test_a_body_in_chunks_is_put_together_without_its_extensions(body: bytes) -> None:
    reading = read_both_ways(CHUNKED + body + GET)

    assert (b"body!", []) == (reading.requests[0].body, reading.requests[0].trailers)
    assert read(GET).only == reading.requests[1]


def test_a_body_that_looks_like_chunks_and_heads_inside_is_only_a_body() -> None:
    body = b"0\r\n\r\n" + GET + b"\r\n\r\n\r\n"

    reading = read_both_ways(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + GET)

    assert [body, b""] == [request.body for request in reading.requests]


def test_trailers_are_told_with_the_end() -> None:
    reading = read_both_ways(CHUNKED + b"0\r\nA: b\r\na: c\r\n\r\n" + GET)

    assert [(b"A", b"b"), (b"a", b"c")] == reading.requests[0].trailers
    assert [] == reading.requests[1].trailers


@pytest.mark.parametrize("size_bytes", [64 * KIB, 256 * KIB, 1024 * KIB])
def test_a_chunk_may_be_as_large_as_it_likes(size_bytes: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size_bytes, b"x" * size_bytes)

    reading = read(CHUNKED, chunk, chunk, b"0\r\n\r\n")

    assert 2 * size_bytes == len(reading.only.body)


def test_a_chunk_size_of_64_bits_is_awaited_but_nothing_is_kept_for_it() -> None:
    reading = read(CHUNKED + b"ffffffffffffffff\r\n", b"x" * 100)

    assert (100, None) == (len(reading.only.body), reading.only.trailers)


# --- Offers of other protocols -------------------------------------------------------------------

OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


def test_an_offer_without_a_body_is_told_and_the_next_request_is_read() -> None:
    reading = read_both_ways(b"GET /1 HTTP/1.1\r\nHost: a\r\n" + OFFER + b"\r\n" + GET)

    assert [b"h2c", b""] == [request.upgrade for request in reading.requests]
    assert [[], []] == [request.trailers for request in reading.requests]


@pytest.mark.parametrize("pieces", [[b"early", GET], [b"early" + GET]], ids=["cut", "whole"])
@pytest.mark.parametrize("is_behind_head", [True, False], ids=["in one read", "in another"])
def test_what_stands_behind_an_offer_with_close_is_held_and_never_a_request(
    pieces: list[bytes], *, is_behind_head: bool
) -> None:
    """If the offer is taken it is of the new protocol; else nobody reads it."""
    head = with_field(b"Connection: Upgrade, close\r\nUpgrade: x")
    receiver = RecordingReceiver()
    reader = reader_for(receiver)

    for piece in [head + pieces[0], *pieces[1:]] if is_behind_head else [head, *pieces]:
        assert reader.feed(piece) is None

    assert b"x" == receiver.reading.only.upgrade
    assert b"early" + GET == reader.take_held()


def test_behind_a_body_with_an_offer_and_close_nothing_is_held() -> None:
    """Such an offer is not taken: it could be answered in the middle of the body."""
    receiver = RecordingReceiver()
    reader = reader_for(receiver)

    for piece in (POST, OFFER, b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", GET):
        assert reader.feed(piece) is None

    assert b"hi" == receiver.reading.only.body
    assert b"" == reader.take_held()


@pytest.mark.parametrize(
    ("framing", "body", "trailers"),
    [
        (b"Content-Length: 5\r\n", b"body!", []),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nbody!\r\n0\r\n\r\n", []),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nbody!\r\n0\r\nA: b\r\n\r\n", [(b"A", b"b")]),
    ],
)
def test_the_body_of_a_request_with_an_offer_is_read(
    framing: bytes, body: bytes, trailers: list[tuple[bytes, bytes]]
) -> None:
    """Java's HttpClient offers h2c with each first request, POST too."""
    reading = read_both_ways(POST + OFFER + framing + b"\r\n" + body + GET)

    assert b"body!" == reading.requests[0].body
    assert trailers == reading.requests[0].trailers
    assert read(GET).only == reading.requests[1]


def test_a_bad_body_behind_an_offer_is_refused() -> None:
    reading = read_both_ways(POST + OFFER + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n")

    assert BAD is reading.wrong


def test_upgrade_is_no_offer_unless_connection_says_so() -> None:
    reading = read_both_ways(with_field(b"Upgrade: websocket") + GET)

    assert [b"", b""] == [request.upgrade for request in reading.requests]


def test_http_1_0_offers_nothing() -> None:
    head = b"GET / HTTP/1.0\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n"

    reading = read_both_ways(head + GET)

    assert [b"", b""] == [request.upgrade for request in reading.requests]


@pytest.mark.parametrize("value", [b"200-ok", b"100-Continue", b"100-continue, 200-ok"])
def test_an_expectation_is_passed_on_whatever_it_is(value: bytes) -> None:
    reading = read_both_ways(POST + b"Expect: " + value + b"\r\nContent-Length: 1\r\n\r\nx")

    assert (b"Expect", value) in reading.only.fields


def test_http_1_0_expects_nothing() -> None:
    """RFC 9110 §10.1.1: it knows no 100, so the expectation is ignored, and goes no further."""
    head = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nA: b\r\nContent-Length: 1\r\n\r\n"

    assert b"\r\nA: b\r\nContent-Length: 1" == read_both_ways(head + b"x").only.crossing
