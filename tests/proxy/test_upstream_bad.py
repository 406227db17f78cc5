"""What an instance may not send: each is a bad response with a reason, never passed on as whole."""

from __future__ import annotations

from typing import cast

import pytest

from gateway.core.failure import Failure
from gateway.proxy.answers import MAX_FIELDS, MAX_HEAD_BYTES
from gateway.proxy.upstream import INTERIM_ANSWERS_PER_S, MAX_INTERIM_ANSWERS
from tests.fakes.wire import Line, answered

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK_EVENTS = [("head", 200, b"OK", (), 4), ("body", b"body"), ("end", ())]

# --- Not HTTP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"SSH-2.0-OpenSSH_9.7\r\n", "Expected HTTP/"),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "it is not HTTP/1"),
        (b"ICE/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "it is not HTTP/1"),
        (b"\r\n" + OK, "it is not HTTP/1"),
        (b"HUH/1.1 200 OK\r\n\r\n", "Expected HTTP/"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "it is not HTTP/1"),
        (b"HTTP/0.9 200 OK\r\n\r\n", "it is not HTTP/1"),
        (b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", "status 99"),
        (b"HTTP/1.1 2000 High\r\nContent-Length: 0\r\n\r\n", "Invalid response status"),
        (b"HTTP/1.1 200 a\x01b\r\nContent-Length: 0\r\n\r\n", "control characters"),
        (b"HTTP/1.1 200 a\x7fb\r\nContent-Length: 0\r\n\r\n", "control characters"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "Missing expected CR"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", ""),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "whitespace"),
        (b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "Invalid header"),
        (b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", "Invalid header"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", "Invalid header"),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "Missing expected LF"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nbody", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\n", "Content-Length"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "Transfer-Encoding"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "switches to a protocol"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes",
            "switches to a protocol",
        ),
        *(
            (b"HTTP/1.1 %b X\r\n%b\r\n\r\n" % (status, framing) + OK, "an interim answer")
            for status in (b"100", b"103", b"104", b"199")
            for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked")
        ),
    ],
    ids=range(36),
)
def test_what_can_be_read_in_two_ways_is_a_bad_response(raw: bytes, detail: str) -> None:
    line, exchange = answered(raw)

    assert Failure.BAD_RESPONSE is exchange.failure[0]
    assert detail in exchange.failure[1]
    assert [("failed", *exchange.failure)] == exchange.events
    assert line.transport.is_aborted


@pytest.mark.parametrize(
    "chunk",
    [
        b"-4\r\nbody\r\n",
        b"4\nbody\r\n",
        b"4\r\nbodyx\r\n",
        b"g\r\n",
        b"4 \r\nbody\r\n",
        b"4\r\nbody\n",
    ],
)
def test_a_broken_chunk_is_a_bad_response_behind_its_head(chunk: bytes) -> None:
    line, exchange = answered(CHUNKED, chunk + b"0\r\n\r\n")

    assert ("head", 200, b"OK", (), None) == exchange.events[0]
    assert Failure.BAD_RESPONSE is exchange.failure[0]
    assert line.transport.is_aborted


def test_what_follows_a_bad_head_in_the_same_read_is_not_looked_at() -> None:
    _, exchange = answered(b"HTTP/1.1 099 Low\r\nContent-Length: 4\r\n\r\nbody" + OK)

    assert (Failure.BAD_RESPONSE, "status 99") == exchange.failure


# --- Floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [1, 7], ids=["one read", "seven reads"])
def test_a_head_of_more_than_64_kib_is_a_bad_response(reads: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"
    step = -(-len(head) // reads)

    _, exchange = answered(*(head[start : start + step] for start in range(0, len(head), step)))

    assert Failure.BAD_RESPONSE is exchange.failure[0]
    assert "too long" in exchange.failure[1]
    assert 1 == len(exchange.events)


@pytest.mark.parametrize("reads", [1, 7], ids=["one read", "seven reads"])
@pytest.mark.parametrize("status", [b"103 Early Hints", b"200 OK"], ids=["interim", "final"])
def test_a_head_of_more_than_a_thousand_lines_is_a_bad_response(status: bytes, reads: int) -> None:
    def head(count: int) -> bytes:
        return b"HTTP/1.1 %b\r\n%b\r\n" % (status, b"a:\r\n" * count)

    def cut(data: bytes) -> list[bytes]:
        step = -(-len(data) // reads)
        return [data[start : start + step] for start in range(0, len(data), step)]

    _, exchange = answered(*cut(head(MAX_FIELDS - 2)))
    assert status.split(b" ")[0] == b"%d" % cast("int", exchange.events[0][1])
    _, exchange = answered(*cut(head(MAX_FIELDS)))

    assert (Failure.BAD_RESPONSE, "the head has more than 1000 lines") == exchange.failure


def test_a_head_that_never_ends_is_a_bad_response() -> None:
    _, exchange = answered(b"HTTP/1.1 200 OK\r\nX: ", *[b"x" * 16384] * 5)

    assert (Failure.BAD_RESPONSE, "the head or the trailers are too long") == exchange.failure


@pytest.mark.parametrize(
    "start", [b"0\r\nX: ", b"1;", b"1\r\nx\r\n0\r\nX: "], ids=["trailer", "extension", "behind"]
)
def test_chunk_lines_and_trailers_that_never_end_break_the_answer_off(start: bytes) -> None:
    _, exchange = answered(CHUNKED, start, *[b"x" * 16384] * 5)

    assert Failure.BAD_RESPONSE is exchange.failure[0]
    assert ("head", 200, b"OK", (), None) == exchange.events[0]


def test_a_long_body_is_no_long_head() -> None:
    body = b"x" * (3 * MAX_HEAD_BYTES)
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    line, exchange = answered(raw[:200_000], raw[200_000:])

    assert [("head", 200, b"OK", (), len(body)), ("body", body), ("end", ())] == exchange.events
    assert [line.clock()] == line.home.taken_back


def test_interim_answers_are_relayed_up_to_a_limit() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"

    _, exchange = answered(interim * MAX_INTERIM_ANSWERS + OK)

    assert MAX_INTERIM_ANSWERS + len(OK_EVENTS) == len(exchange.events)


def test_a_long_row_of_interim_answers_is_bounded_by_time_alone() -> None:
    """A job of an hour may say every now and then that it goes on, and a stall delivers a row."""
    line, interim = Line(), b"HTTP/1.1 102 Processing\r\n\r\n"
    exchange = line.begin()
    rows = [interim * MAX_INTERIM_ANSWERS, *[interim * INTERIM_ANSWERS_PER_S] * 60]

    for row in rows:
        line.receive(row)
        line.clock.advance(1.0)
    line.receive(OK)

    assert MAX_INTERIM_ANSWERS + 60 * INTERIM_ANSWERS_PER_S + len(OK_EVENTS) == len(exchange.events)


def test_an_interim_answer_may_say_that_it_has_no_body() -> None:
    _, exchange = answered(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n" + OK)

    assert OK_EVENTS == exchange.events[1:]


def test_endless_interim_answers_are_a_bad_response() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"

    _, exchange = answered(*[interim] * (MAX_INTERIM_ANSWERS + 1))

    assert (Failure.BAD_RESPONSE, "endless interim answers") == exchange.failure
