"""What an instance sends, and what it means: answers, what is no answer, and whose fault it is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from gateway.core.failure import Failure
from gateway.proxy.outbox import Outbox
from gateway.runtime.unsent import MOST_UNSENT_BYTES
from tests.fakes.wire import Line, answered

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
OK_EVENTS = [("head", 200, b"OK", (), 4), ("body", b"body"), ("end", ())]


# --- Answers -------------------------------------------------------------------------------------


def test_an_answer_with_a_length_is_told_and_the_connection_goes_home() -> None:
    line, exchange = answered(OK)

    assert OK_EVENTS == exchange.events
    assert [line.clock()] == line.home.taken_back
    assert not line.transport.is_aborted
    assert "<UpstreamConnection idle, used before: True>" == repr(line.connection)


def test_each_read_is_flushed_to_the_client_once() -> None:
    line = Line()
    exchange = line.begin()

    line.receive(OK[:30], OK[30:])

    assert 2 == exchange.client.flushes


def test_a_connection_carries_one_exchange_after_the_other() -> None:
    line, _ = answered(OK)

    second = line.begin()
    line.receive(OK)

    assert OK_EVENTS == second.events
    assert b"GET / HTTP/1.1\r\n\r\n" * 2 == line.transport.written


def test_an_answer_in_chunks_with_trailers() -> None:
    _, exchange = answered(CHUNKED + b"3;x=y\r\none\r\n3\r\ntwo\r\n0\r\nChecksum: 1\r\n\r\n")

    assert [
        ("head", 200, b"OK", (), None),
        ("body", b"onetwo"),
        ("end", ((b"Checksum", b"1"),)),
    ] == exchange.events


def test_an_answer_that_ends_with_its_connection() -> None:
    line, exchange = answered(b"HTTP/1.1 200 OK\r\n\r\n", b"some", b"thing")
    assert not exchange.is_over

    line.close()

    assert [("body", b"something"), ("end", ())] == exchange.events[1:]
    assert [] == line.home.taken_back


def test_an_answer_that_ends_with_its_connection_is_not_whole_after_a_reset() -> None:
    line, exchange = answered(b"HTTP/1.1 200 OK\r\n\r\nsome")

    line.close(ConnectionResetError())

    assert Failure.UPSTREAM_BROKE_OFF is exchange.failure[0]


@pytest.mark.parametrize("head", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("fields", [b"", b"ETag: 1\r\n"])
def test_an_answer_without_a_body_needs_no_length(head: bytes, fields: bytes) -> None:
    line, exchange = answered(b"HTTP/1.1 %b\r\n%b\r\n" % (head, fields))

    assert ["head", "end"] == [event[0] for event in exchange.events]
    assert [line.clock()] == line.home.taken_back


@pytest.mark.parametrize("framing", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_the_answer_to_head_has_no_body_whatever_it_announces(framing: bytes) -> None:
    line, exchange = answered(b"HTTP/1.1 200 OK\r\n%b\r\n" % framing, to_head=True)

    assert ["head", "end"] == [event[0] for event in exchange.events]
    assert [line.clock()] == line.home.taken_back
    second = line.begin()
    line.receive(OK)
    assert OK_EVENTS == second.events


def test_the_answer_to_head_keeps_the_length_that_a_body_would_have() -> None:
    _, exchange = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", to_head=True)

    assert exchange.head is not None
    assert (4, False) == (exchange.head.length, exchange.head.has_body)


def test_interim_answers_are_told_one_by_one() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    _, exchange = answered(b"HTTP/1.1 100 Continue\r\n\r\n" + interim + OK)

    assert [
        ("interim", 100, ()),
        ("interim", 103, ((b"Link", b"</a>"),)),
        *OK_EVENTS,
    ] == exchange.events


@pytest.mark.parametrize(
    ("head", "goes_home"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: not-keep-alive\r\n", False),
        (b"HTTP/1.0 200 OK\r\nX: keep-alive\r\n", False),
    ],
)
def test_a_connection_goes_home_when_the_instance_keeps_it(
    head: bytes,
    goes_home: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    line, exchange = answered(head + b"Content-Length: 0\r\n\r\n")

    assert ("end", ()) == exchange.events[-1]
    assert goes_home == bool(line.home.taken_back)
    assert goes_home != line.transport.is_aborted


def test_chunks_in_http_1_0_are_faulty_framing_and_cost_the_connection() -> None:
    head = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"

    line, exchange = answered(head + b"0\r\n\r\n")

    assert ("end", ()) == exchange.events[-1]
    assert line.transport.is_aborted


def test_a_connection_that_was_paused_for_a_slow_client_is_read_again_at_home() -> None:
    line = Line()
    line.begin()
    line.connection.pause_reading()
    assert not line.transport.is_read

    line.receive(OK)

    assert line.transport.is_read


def test_reading_goes_on_when_it_is_told() -> None:
    line = Line()
    line.begin()

    line.connection.pause_reading()
    line.connection.resume_reading()
    line.connection.write(b"more")

    assert line.transport.is_read
    assert line.transport.written.endswith(b"more")


def test_back_pressure_is_told_to_the_exchange_in_hand() -> None:
    line = Line()
    exchange = line.begin()

    line.chokes()
    line.takes_on()

    assert [("paused",), ("resumed",)] == exchange.events


def test_tiny_pieces_for_an_instance_that_takes_nothing_leave_as_one() -> None:
    line = Line()
    exchange = line.begin()
    line.chokes(unsent_bytes=1)
    before = bytes(line.transport.written)

    for _ in range(100):
        line.connection.write(b"x")
    assert before == line.transport.written
    assert [] == exchange.events, "a little may wait"
    line.takes_on()
    line.connection.write(b"y")

    assert before + b"x" * 100 + b"y" == line.transport.written


def test_the_exchange_is_stopped_when_much_waits_and_goes_on_when_it_was_taken() -> None:
    line = Line()
    exchange = line.begin()
    line.chokes(unsent_bytes=1)

    line.connection.write(b"x" * MOST_UNSENT_BYTES)
    assert [("paused",)] == exchange.events
    line.transport.unsent_bytes = MOST_UNSENT_BYTES + 1  # what was joined is not taken either
    line.connection.resume_writing()
    assert [("paused",)] == exchange.events
    line.takes_on()

    assert [("paused",), ("resumed",)] == exchange.events


def test_an_answer_that_is_over_before_its_request_was_sent_costs_the_connection() -> None:
    """What is left of the request would stand in front of the next one."""
    line = Line()
    exchange = line.begin()
    line.chokes(unsent_bytes=1)

    line.receive(OK)

    assert exchange.is_over
    assert [] == line.home.taken_back
    assert line.transport.is_aborted


async def test_what_waits_for_the_instance_leaves_before_a_tunnel_ends() -> None:
    line = Line()
    line.begin().request.upgrade = b"websocket"
    line.receive(SWITCHING)
    line.chokes(unsent_bytes=1)

    line.connection.write(b"the last")
    line.connection.leave()

    assert line.transport.written.endswith(b"the last")
    assert line.transport.is_half_closed


def test_a_connection_that_takes_no_more_when_its_answer_is_over_carries_no_other_request() -> None:
    """It answered before it had taken the request: the next one could wait for it for ever."""
    line, exchange = answered(OK)

    line.chokes()

    assert line.transport.is_aborted
    assert line.connection.is_closing
    assert OK_EVENTS == exchange.events


async def test_a_tunnel_that_is_closing_takes_its_time() -> None:
    line = Line()
    line.begin().request.upgrade = b"websocket"
    line.receive(SWITCHING)
    line.connection.leave()

    line.chokes()

    assert not line.transport.is_aborted


def test_interim_answers_are_counted_for_each_exchange_anew() -> None:
    interims = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20
    line, _ = answered(interims + OK)

    second = line.begin()
    line.receive(interims + OK)

    assert OK_EVENTS == second.events[20:]


# --- Too much ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [b"x", b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX"],
)
def test_extra_bytes_behind_an_answer_cost_the_connection_and_reach_nobody(extra: bytes) -> None:
    line, exchange = answered(OK + extra)

    assert OK_EVENTS == exchange.events
    assert line.transport.is_aborted
    assert [] == line.home.taken_back


def test_what_stands_behind_an_answer_in_chunks_is_not_its_trailer() -> None:
    _, exchange = answered(CHUNKED + b"0\r\n\r\n" + b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\n\r\nstolen")

    assert [("head", 200, b"OK", (), None), ("end", ())] == exchange.events


@pytest.mark.parametrize(
    "extra", [b"body", b"0", b"0\r\n\r\n", b"4\r\nbody\r\n0\r\n\r\n", OK, b"\n"]
)
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n", b""]
)
def test_a_body_behind_the_answer_to_head_costs_the_connection(
    framing: bytes, extra: bytes
) -> None:
    line, exchange = answered(b"HTTP/1.1 200 OK\r\n%b\r\n" % framing + extra, to_head=True)

    assert ["head", "end"] == [event[0] for event in exchange.events]
    assert line.transport.is_aborted


@pytest.mark.parametrize("framing", [b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_204_that_announces_a_body_costs_the_connection(framing: bytes) -> None:
    """What it announces may come late: as if it were the answer to the next request."""
    line, exchange = answered(b"HTTP/1.1 204 No Content\r\n%b\r\n" % framing)

    assert [("head", 204, b"No Content", (), None), ("end", ())] == exchange.events
    assert line.transport.is_aborted


def test_a_body_behind_204_costs_the_connection() -> None:
    line, exchange = answered(b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody")

    assert [("head", 204, b"No Content", (), None), ("end", ())] == exchange.events
    assert line.transport.is_aborted


def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    line, _ = answered(OK)

    line.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    assert line.transport.is_aborted
    assert line.connection.is_closing
    assert "<UpstreamConnection closing, used before: True>" == repr(line.connection)


@pytest.mark.parametrize("said", [OK, b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"H"])
def test_what_came_before_the_request_left_does_not_answer_it(said: bytes) -> None:
    """Both were there in the same turn of the loop, and the client was heard first."""
    line, turn = used_line()
    exchange = line.begin()

    line.receive(said)

    assert len(turn) == 1  # it waits for the end of the turn, and its transport is closed by then
    assert Failure.STALE_CONNECTION is exchange.failure[0]
    assert not exchange.anything_sent
    assert line.transport.is_aborted


def test_what_comes_once_the_request_has_left_is_its_answer() -> None:
    line, turn = used_line()
    exchange = line.begin()
    turn.pop()()

    line.receive(OK)

    assert OK_EVENTS == exchange.events


def test_an_instance_that_speaks_first_gets_no_second_request() -> None:
    """What it says to the request that leaves behind it would answer the next one."""
    line = Line(outbox=Outbox(lambda _: None))
    exchange = line.begin()

    line.receive(OK)

    assert OK_EVENTS == exchange.events
    assert line.connection.is_closing
    assert [] == line.home.taken_back


def test_an_instance_may_refuse_a_new_connection_before_it_reads() -> None:
    """Nobody else can be meant by it."""
    line = Line(outbox=Outbox(lambda _: None))
    exchange = line.begin()

    line.receive(b"HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n")

    assert ["head", "end"] == [event[0] for event in exchange.events]


def test_a_request_that_has_not_left_when_its_connection_ends_was_not_sent() -> None:
    line, _ = used_line()
    exchange = line.begin()

    line.close()

    assert Failure.STALE_CONNECTION is exchange.failure[0]
    assert not exchange.anything_sent


def used_line() -> tuple[Line, list[Callable[[], None]]]:
    """Make one that has carried a request; what is written leaves when the turn is popped."""
    turn: list[Callable[[], None]] = []
    line = Line(outbox=Outbox(turn.append))
    line.begin()
    turn.pop()()
    line.receive(OK)
    return line, turn


def test_bytes_before_the_first_request_close_the_connection() -> None:
    line = Line()

    line.receive(OK)

    assert line.connection.is_closing


# --- The connection ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (b"", Failure.DISCONNECTED_EARLY),
        (b"HTTP/1.1 200", Failure.DISCONNECTED_EARLY),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", Failure.DISCONNECTED_EARLY),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbod", Failure.UPSTREAM_BROKE_OFF),
        (CHUNKED + b"4\r\nbody\r\n", Failure.UPSTREAM_BROKE_OFF),
        (CHUNKED + b"4\r\nbody\r\n0\r\n", Failure.UPSTREAM_BROKE_OFF),
    ],
)
@pytest.mark.parametrize(
    ("error", "how"), [(None, "closed"), (ConnectionResetError(), "reset")], ids=["FIN", "RST"]
)
def test_a_connection_that_ends_inside_an_answer(
    raw: bytes, failure: Failure, error: Exception | None, how: str
) -> None:
    line, exchange = answered(raw) if raw else (one := Line(), one.begin())

    line.close(error)

    assert failure is exchange.failure[0]
    assert f"the instance {how} the connection" in exchange.failure[1]
    assert [None] == line.home.lost_ones


def test_a_used_connection_that_ends_before_any_byte_was_stale() -> None:
    line, _ = answered(OK)
    second = line.begin()

    line.close()

    assert Failure.STALE_CONNECTION is second.failure[0]


def test_a_used_connection_that_ends_inside_the_head_was_not_stale() -> None:
    line, _ = answered(OK)
    second = line.begin()
    line.receive(b"H")

    line.close()

    assert Failure.DISCONNECTED_EARLY is second.failure[0]


@pytest.fixture
def unread() -> Iterator[tuple[Line, socket.socket]]:
    """Make a connection that has a socket, and its other end."""
    own, peer = socket.socketpair()
    own.settimeout(0)
    line = Line()
    line.transport.socket = own
    with own, peer:
        yield line, peer


def test_the_answer_that_came_before_a_write_failed_is_told(
    unread: tuple[Line, socket.socket],
) -> None:
    line, peer = unread
    exchange = line.begin()
    peer.sendall(OK)

    line.close(BrokenPipeError())

    assert OK_EVENTS == exchange.events
    assert [None] == line.home.lost_ones
    assert line.connection.is_closing


def test_half_an_answer_before_a_write_failed_is_told_as_far_as_it_goes(
    unread: tuple[Line, socket.socket],
) -> None:
    line, peer = unread
    exchange = line.begin()
    peer.sendall(OK[:-1])
    peer.close()

    line.close(ConnectionResetError())

    assert [("head", 200, b"OK", (), 4), ("body", b"bod")] == exchange.events[:2]
    assert Failure.UPSTREAM_BROKE_OFF is exchange.failure[0]


def test_what_came_before_a_write_failed_waits_for_a_client_that_reads_no_further(
    unread: tuple[Line, socket.socket],
) -> None:
    line, peer = unread
    exchange = line.begin()
    line.receive(OK[:-2])
    line.connection.pause_reading()
    peer.sendall(OK[-2:])

    line.close(ConnectionResetError())
    told_before = exchange.events[1:]
    line.connection.resume_reading()
    line.pass_turns()

    assert told_before == [("body", b"bo")]
    assert OK_EVENTS == exchange.events


def test_a_lost_connection_can_be_held_back_again_while_its_rest_is_looked_at(
    unread: tuple[Line, socket.socket],
) -> None:
    line, peer = unread
    exchange = line.begin()
    line.receive(CHUNKED)
    peer.sendall(b"1\r\nx\r\n" * 2500 + b"0\r\n\r\n")

    line.close(ConnectionResetError())
    line.connection.pause_reading()
    line.pass_turns()
    is_held_back = exchange.events[-1][0] == "body"
    line.connection.resume_reading()
    line.pass_turns()

    assert is_held_back
    assert [("body", b"x" * 2500), ("end", ())] == exchange.events[1:]


def test_an_idle_connection_that_ends_tells_its_home_how_long_it_was_idle() -> None:
    line, _ = answered(OK)
    line.clock.advance(7.0)

    line.close()

    assert [7.0] == line.home.lost_ones
    assert line.connection.is_closing


def test_a_connection_that_ends_before_its_first_request_was_never_idle() -> None:
    line = Line()

    line.close()

    assert [None] == line.home.lost_ones


def test_the_end_of_the_stream_is_enough_for_nobody_to_begin_on_it() -> None:
    line, _ = answered(OK)

    line.connection.eof_received()

    assert line.connection.is_closing
    assert line.transport.is_aborted


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 4\r\n\r\nbody",
        b"Content-Length: 4\r\n\r\nbody and garbage",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\ngarbage",
    ],
)
def test_what_follows_a_head_that_was_left_for_another_instance_reaches_nobody(rest: bytes) -> None:
    line = Line()
    exchange = line.begin(leaves_at_head=True)

    line.receive(b"HTTP/1.1 503 Busy\r\n" + rest)
    line.close()

    assert ["head"] == [event[0] for event in exchange.events]
    assert 0 == exchange.client.flushes


def test_nothing_is_told_after_an_abort() -> None:
    line = Line()
    exchange = line.begin()

    line.connection.abort()
    line.close()

    assert [] == exchange.events
    assert line.transport.is_aborted
