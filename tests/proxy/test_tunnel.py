"""Switching protocols: what is offered, what counts as a switch, and how a tunnel ends."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, lines_of
from gateway.core.policy import BreakerPolicy, Timeouts
from gateway.proxy.tunnel import Tunnel, refused_offer, switched_to
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeClient, FakeConnection
from tests.fakes.wire import Line, RecordingExchange

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: x, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Accept: abc\r\n\r\n"
)
POLICIES = Policies(
    timeouts=Timeouts(idle_s=20.0, tunnel_s=60.0, request_s=90.0),
    breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0),
)


def offering(stage: Stage, offer: bytes = b"websocket", length: int | None = 0) -> Play:
    """Begin a request that offers another protocol."""
    request = stage.request(length=length)
    request.upgrade = offer
    client = FakeClient()
    exchange = stage.engine.exchange(request, client)
    exchange.begin(stage.clock())
    return Play(exchange=exchange, client=client)


def switched(stage: Stage, offer: bytes = b"websocket") -> tuple[Play, FakeConnection]:
    """Bring a request to the point where the protocol has switched."""
    play = offering(stage, offer)
    connection = stage.pools["a"].connect()
    head = AnswerHead(101, b"", lines_of([(b"Upgrade", b"websocket")]))
    play.exchange.upstream_switched(head, stage.clock())
    return play, connection


# --- The offer -----------------------------------------------------------------------------------


def test_an_offer_that_the_route_takes_goes_to_the_instance() -> None:
    stage = Stage()
    offering(stage)

    connection = stage.pools["a"].connect()

    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" in connection.sent


def test_an_offer_that_the_route_does_not_take_is_forgotten() -> None:
    stage = Stage()
    offering(stage, b"h2c")

    connection = stage.pools["a"].connect()

    assert b"pgrade" not in connection.sent


def test_an_offer_with_a_body_is_forgotten() -> None:
    """Or it could be answered in the middle of the body."""
    request = Stage().request(length=5)
    request.upgrade = b"h2c"

    assert None is refused_offer(request, frozenset({b"h2c"}))
    assert b"" == request.upgrade


def test_websocket_is_refused_where_the_route_does_not_take_it() -> None:
    request = Stage().request()
    request.upgrade = b"websocket"

    refusal = refused_offer(request, frozenset())

    assert (Failure.NOT_IMPLEMENTED, "this route takes no WebSocket") == refusal


def test_a_request_without_an_offer_is_taken() -> None:
    request = Stage().request()

    assert None is refused_offer(request, frozenset())
    assert b"" == request.upgrade


# --- The switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "protocol"),
    [
        ([(b"Upgrade", b"WebSocket"), (b"Connection", b"Upgrade")], b"websocket"),
        ([(b"upgrade", b" h2c "), (b"connection", b"x, upgrade")], b"h2c"),
        ([(b"Upgrade", b"websocket")], b""),
        ([(b"Connection", b"Upgrade")], b""),
        ([(b"Upgrade", b"a"), (b"Upgrade", b"a"), (b"Connection", b"upgrade")], b""),
        ([], b""),
    ],
)
def test_a_switch_names_just_one_protocol_and_means_it(
    fields: list[tuple[bytes, bytes]], protocol: bytes
) -> None:
    assert protocol == switched_to(fields)


def line_offering(offer: bytes, *, is_tls: bool = False) -> tuple[Line, RecordingExchange]:
    line = Line(is_tls=is_tls)
    exchange = line.begin()
    exchange.request.upgrade = offer
    return line, exchange


def test_what_stands_behind_the_101_is_the_first_that_passes() -> None:
    line, exchange = line_offering(b"websocket")

    line.receive(SWITCH + b"first", b"second")

    fields = ((b"Sec-WebSocket-Accept", b"abc"), (b"Upgrade", b"websocket"))
    assert [
        ("switched", 101, fields),
        ("body", b"firstsecond"),
    ] == exchange.events


@pytest.mark.parametrize("places", [range(len(SWITCH)), [10], [len(SWITCH)]])
def test_any_cut_of_a_switch_tells_the_same(places: list[int]) -> None:
    line, exchange = line_offering(b"websocket")
    raw = SWITCH + b"bytes"
    edges = [0, *(place for place in places if place), len(raw)]

    line.receive(*(raw[start:end] for start, end in pairwise(edges)))

    assert ["switched", "body"] == [event[0] for event in exchange.events]
    assert ("body", b"bytes") == exchange.events[-1]


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: gzip, chunked",
    ],
)
def test_a_101_ends_with_its_head_whatever_it_says(framing: bytes) -> None:
    """RFC 9112 §6.3; a client that got a length would wait for a body."""
    line, exchange = line_offering(b"websocket")

    line.receive(SWITCH[:-2] + framing + b"\r\n\r\nearly")

    fields = ((b"Sec-WebSocket-Accept", b"abc"), (b"Upgrade", b"websocket"))
    assert [("switched", 101, fields), ("body", b"early")] == exchange.events


def test_a_tunnel_carries_any_amount() -> None:
    line, exchange = line_offering(b"websocket")
    line.receive(SWITCH)

    line.receive(*[b"x" * 65536] * 4)

    assert ("body", b"x" * 262144) == exchange.events[-1]


def test_what_is_read_together_with_the_101_may_be_longer_than_any_head() -> None:
    line, exchange = line_offering(b"websocket")

    line.receive(SWITCH + b"x" * 262144)

    assert ("body", b"x" * 262144) == exchange.events[-1]


@pytest.mark.parametrize(
    "raw",
    [
        SWITCH.replace(b"WebSocket", b"h2c"),
        SWITCH.replace(b"Connection: x, Upgrade\r\n", b""),
        SWITCH.replace(b"Upgrade: WebSocket\r\n", b""),
        SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["another", "not meant", "not named", "HTTP/1.0"],
)
def test_what_is_no_switch_to_what_was_offered_is_a_bad_response(raw: bytes) -> None:
    line, exchange = line_offering(b"websocket")

    line.receive(raw)

    assert Failure.BAD_RESPONSE is exchange.failure[0]
    assert 1 == len(exchange.events)
    assert line.transport.is_aborted


async def test_the_end_of_the_stream_is_the_end_of_a_tunnel() -> None:
    line, exchange = line_offering(b"websocket")
    line.receive(SWITCH)

    line.connection.eof_received()
    assert not line.transport.is_aborted  # what the client said last may still leave
    line.connection.connection_lost(None)

    assert ("end", ()) == exchange.events[-1]


async def test_a_switch_that_says_that_it_has_no_body_is_one_like_any_other() -> None:
    line, exchange = line_offering(b"websocket")

    line.receive(SWITCH.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n") + b"bytes")
    line.close()

    assert ["switched", "body", "end"] == [event[0] for event in exchange.events]
    assert exchange.head is not None
    assert exchange.head.length is None


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_a_tunnel_ends_behind_its_last_bytes_and_waits_for_the_instance(
    *, is_tls: bool
) -> None:
    """Closing with unread bytes would reset it, and may destroy the last ones."""
    line, exchange = line_offering(b"websocket", is_tls=is_tls)
    line.receive(SWITCH)
    line.connection.pause_reading()
    line.connection.write(b"last")

    line.connection.leave()
    line.receive(b"late")

    transport = line.transport
    assert (not is_tls, is_tls) == (transport.is_half_closed, transport.is_closed)
    assert (True, False) == (transport.is_read, transport.is_aborted)
    assert line.connection.is_closing
    assert [] == line.home.taken_back
    assert "switched" == exchange.events[-1][0]
    line.close()


async def test_an_instance_that_ends_its_side_too_is_waited_for_no_longer() -> None:
    line, _ = line_offering(b"websocket")
    line.receive(SWITCH)
    line.connection.leave()
    waiting = line.connection._lingering

    line.close()

    assert waiting is not None
    assert waiting.cancelled()


# --- The tunnel ----------------------------------------------------------------------------------


def test_bytes_pass_both_ways_as_they_are() -> None:
    stage = Stage("abc", POLICIES)
    play, connection = switched(stage)

    stage.send(play, b"up")
    connection.body(b"down")
    stage.send(play, b"up")

    assert connection.sent.endswith(b"\r\n\r\nupup")
    assert b"down" == bytes(play.client.body)


def test_a_tunnel_outlives_the_request_deadline_and_ends_when_nothing_moves() -> None:
    stage = Stage("abc", POLICIES)
    play, connection = switched(stage)
    for _ in range(3):
        stage.pass_time(59.0)
        stage.send(play, b"up")
        stage.pass_time(59.0)
        connection.body(b"down")

    stage.pass_time(60.0)

    assert Failure.TUNNEL_IDLE is play.exchange.failure
    assert "abort" == play.client.said[-1]
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_client_may_end_a_tunnel() -> None:
    stage = Stage("abc", POLICIES)
    play, connection = switched(stage)

    play.exchange.client_gone(stage.clock())

    assert ["head 101", "end"] == play.client.said
    assert (None, 101) == (play.exchange.failure, play.exchange.status)
    assert "closed" == connection.ending
    stage.assert_all_is_settled()


def test_an_instance_may_end_a_tunnel() -> None:
    stage = Stage("abc", POLICIES)
    play, connection = switched(stage)

    connection.end()

    assert ["head 101", "end"] == play.client.said
    assert "closed" == connection.ending
    stage.assert_all_is_settled()


def test_a_tunnel_that_an_instance_resets_is_broken_off() -> None:
    stage = Stage("abc", POLICIES)
    play, connection = switched(stage)

    connection.fail(Failure.UPSTREAM_BROKE_OFF)

    assert ["head 101", "abort"] == play.client.said
    assert BreakerState.OPEN is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_tunnel_may_be_silent_for_ever_where_nothing_limits_it() -> None:
    timeouts = Timeouts(idle_s=20.0, tunnel_s=None)
    stage = Stage("a", replace(POLICIES, timeouts=timeouts))
    play, connection = switched(stage)

    connection.body(b"a word")
    stage.pass_time(1e6)

    assert play.exchange.failure is None
    assert "head 101" == play.client.said[0]
    assert "abort" not in play.client.said


def test_a_switch_is_the_success_that_a_half_open_breaker_waits_for() -> None:
    stage = Stage("a", POLICIES)
    stage.open_breaker("a")
    stage.clock.advance(10.0)

    switched(stage)

    assert BreakerState.CLOSED is stage.breaker_state("a")


def test_back_pressure_holds_in_a_tunnel() -> None:
    stage = Stage("abc", POLICIES)
    play, connection = switched(stage)

    play.exchange.client_paused()
    connection.pauses()
    assert (True, True) == (connection.is_paused, play.client.is_paused)
    play.exchange.client_resumed(stage.clock())
    connection.resumes()

    assert (False, False) == (connection.is_paused, play.client.is_paused)


def test_a_client_that_took_no_more_before_the_switch_is_not_sent_more() -> None:
    stage = Stage("abc", POLICIES)
    play = offering(stage)
    connection = stage.pools["a"].connect()
    play.exchange.client_paused()

    play.exchange.upstream_switched(AnswerHead(101, b"", b""), stage.clock())

    assert connection.is_paused


# --- Ended by the gateway ------------------------------------------------------------------------

CLOSE_TO_CLIENT = b"\x88\x02\x03\xe9"
CLOSE_TO_INSTANCE = b"\x88\x82\0\0\0\0\x03\xe9"
TEXT = b"\x81\x02hi"
MASKED_TEXT = b"\x81\x82maskhi"


@pytest.mark.parametrize(
    ("protocol", "up", "down", "to_instance", "to_client"),
    [
        (b"websocket", b"", b"", CLOSE_TO_INSTANCE, CLOSE_TO_CLIENT),
        (b"websocket", MASKED_TEXT, TEXT, CLOSE_TO_INSTANCE, CLOSE_TO_CLIENT),
        (b"websocket", MASKED_TEXT[:-1], TEXT, b"", CLOSE_TO_CLIENT),
        (b"websocket", MASKED_TEXT, TEXT[:1], CLOSE_TO_INSTANCE, b""),
        (b"websocket", MASKED_TEXT, CLOSE_TO_CLIENT, CLOSE_TO_INSTANCE, b""),
        (b"echo", MASKED_TEXT, TEXT, b"", b""),
    ],
    ids=["silent", "between", "inside up", "inside down", "closed", "another protocol"],
)
def test_both_ends_are_told_where_the_protocol_has_a_word_for_it(
    protocol: bytes, up: bytes, down: bytes, to_instance: bytes, to_client: bytes
) -> None:
    """RFC 6455 §7.4.1: 1001 is for an endpoint that goes away."""
    stage = Stage("a", POLICIES)
    stage.route(replace(stage.api(), upgrade=frozenset({protocol})))
    play, connection = switched(stage, protocol)
    sent_before = len(connection.sent)
    stage.send(play, up)
    play.exchange.tunnel.passes_on(up)
    play.exchange.tunnel.passes_back(down)

    play.exchange.tunnel.close(play.exchange, stage.clock())

    assert up + to_instance == connection.sent[sent_before:]
    assert to_client == play.client.body
    assert ("end", "closed") == (play.client.said[-1], connection.ending)
    assert play.exchange.failure is None
    stage.assert_all_is_settled()


def test_what_passes_a_tunnel_is_not_kept() -> None:
    upload = Tunnel(b"echo")

    assert b"x" * 99 == upload.add(b"x" * 99)
    assert None is upload.problem()
    assert not upload.is_kept
