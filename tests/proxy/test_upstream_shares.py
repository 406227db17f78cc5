"""What an instance sends is looked at in shares, one in each turn of the loop, to its end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.core.failure import Failure
from tests.fakes.wire import Line, RecordingExchange

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
SWITCHES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MANY = 5000
SMALL_CHUNKS = b"1\r\nx\r\n" * MANY


def asked() -> tuple[Line, RecordingExchange]:
    line = Line()
    return line, line.begin()


def body_bytes(exchange: RecordingExchange) -> int:
    return sum(len(event[1]) for event in exchange.events if isinstance(event[1], bytes))


def in_one_read(line: Line, data: bytes) -> None:
    """Let this arrive; no turn passes yet."""
    line.connection.data_received(data)


def test_of_small_chunks_a_share_is_passed_on_in_each_turn() -> None:
    line, exchange = asked()

    in_one_read(line, CHUNKED + SMALL_CHUNKS + b"0\r\n\r\n")
    sizes = [body_bytes(exchange)]
    assert not line.transport.is_read, "no more is read until all of it was looked at"
    while not exchange.is_over:
        line.pass_turns(1)
        sizes.append(body_bytes(exchange))

    assert sizes == sorted(set(sizes) | {sizes[-1]})
    assert len(sizes) > 4
    assert MANY == sizes[-1]
    assert 1 == len(line.home.taken_back)


def test_one_interim_answer_is_looked_at_in_each_turn_but_the_first() -> None:
    line, exchange = asked()

    in_one_read(line, HINTS * 10 + OK)
    counts = [len(exchange.events)]
    while not exchange.is_over:
        line.pass_turns(1)
        counts.append(len(exchange.events))

    assert 2 == counts[0]
    assert max(after - before for before, after in pairwise(counts)) <= 3
    assert ["interim"] * 10 + ["head", "body", "end"] == [event[0] for event in exchange.events]


def test_of_small_frames_a_share_passes_in_each_turn() -> None:
    line, exchange = asked()
    exchange.request.upgrade = b"websocket"

    in_one_read(line, SWITCHES + b"\x89\0" * MANY)
    before = body_bytes(exchange)
    line.pass_turns()

    assert 0 < before < 2 * MANY
    assert 2 * MANY == body_bytes(exchange)
    assert line.transport.is_read


@pytest.mark.parametrize(
    ("before", "long"),
    [
        ([], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: %b\r\n\r\nok" % (b"x" * 1024)),
        ([OK[:10]], b"00 OK\r\nContent-Length: 2\r\nX: %b\r\n\r\nok" % (b"x" * 1024)),
        ([CHUNKED], b"1\r\nx\r\n" * 200 + b"0\r\n\r\n"),
        ([SWITCHES], b"\x89\0" * 600),
        ([], CHUNKED + b"1\r\nx\r\n" * 200 + b"0\r\n\r\n"),
    ],
    ids=["head", "rest of a head", "chunks", "frames", "chunks behind their head"],
)
def test_a_long_read_waits_when_the_time_of_the_turn_is_over(
    before: list[bytes], long: bytes
) -> None:
    line, exchange = asked()
    other, prompt = asked()
    for one in (exchange, prompt):
        one.request.upgrade = b"websocket" if SWITCHES in before else b""
    line.receive(*before)
    other.receive(*before, long)

    line.use_up_turn()
    in_one_read(line, long)
    assert not line.transport.is_read
    assert body_bytes(exchange) < body_bytes(prompt)
    line.pass_turns()

    assert prompt.events == exchange.events
    assert line.transport.is_read


def test_a_short_read_is_looked_at_whatever_the_time_is() -> None:
    line, exchange = asked()

    line.use_up_turn()
    in_one_read(line, OK)

    assert exchange.is_over


def test_while_the_client_takes_nothing_no_share_is_passed_on() -> None:
    line, exchange = asked()
    in_one_read(line, CHUNKED + SMALL_CHUNKS)
    line.connection.pause_reading()
    before = body_bytes(exchange)

    line.pass_turns()
    assert before == body_bytes(exchange)
    line.connection.resume_reading()
    assert not line.transport.is_read, "what was put off comes first"
    line.pass_turns()

    assert MANY == body_bytes(exchange)
    assert line.transport.is_read


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_the_end_of_a_connection_is_told_behind_all_that_came_before_it(
    error: Exception | None,
) -> None:
    line, exchange = asked()
    in_one_read(line, CHUNKED + SMALL_CHUNKS)

    line.close(error)
    assert not exchange.is_over
    assert [None] == line.home.lost_ones
    line.pass_turns()

    assert MANY == body_bytes(exchange)
    assert Failure.UPSTREAM_BROKE_OFF is exchange.failure[0]
    assert [None] == line.home.lost_ones


def test_an_answer_that_is_whole_before_the_connection_ends_is_whole() -> None:
    line, exchange = asked()
    in_one_read(line, CHUNKED + SMALL_CHUNKS + b"0\r\n\r\n")

    line.close()
    line.pass_turns()

    assert "end" == exchange.events[-1][0]
    assert MANY == body_bytes(exchange)
    assert line.connection.is_closing, "nobody is given it again"


def test_what_was_put_off_is_dropped_when_the_exchange_lets_go() -> None:
    line, exchange = asked()
    in_one_read(line, CHUNKED + SMALL_CHUNKS)
    before = list(exchange.events)

    line.connection.abort()
    line.pass_turns()

    assert before == exchange.events


def test_a_mistake_in_a_later_turn_ends_the_exchange() -> None:
    line = Line()
    exchange = line.begin(mistakes=["body"])
    exchange.mistakes.clear()
    in_one_read(line, CHUNKED + SMALL_CHUNKS)
    exchange.mistakes.append("body")

    with pytest.raises(KeyError):
        line.connection.go_on()

    assert "broke down" == exchange.events[-1][0]
