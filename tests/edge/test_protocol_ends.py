"""The fast face when something breaks off, and when a connection becomes a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from gateway.core.failure import Failure
from gateway.core.message import NO_FIELDS, AnswerHead, lines_of
from tests.fakes.client import RawClient
from tests.fakes.engine import Stage
from tests.fakes.visit import SharedState, Visit
from tests.fakes.waiting import wait_until

GET = b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n"


# --- Broken off ----------------------------------------------------------------------------------


async def test_an_answer_that_breaks_off_resets_the_connection(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.instance.body()
    visit.connection.flush()
    visit.instance.body(b"not sent")
    visit.instance.fail(Failure.UPSTREAM_BROKE_OFF)
    visit.next_connection()

    assert "aborted" == visit.transport.ending
    assert 1 == len(visit.transport.sock.options)
    assert b"not sent" not in visit.transport.written


async def test_a_connection_that_is_closing_already_is_not_reset(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.transport.close()

    visit.instance.fail(Failure.UPSTREAM_BROKE_OFF)

    assert [] == visit.transport.sock.options


@pytest.mark.parametrize("is_answering", [False, True])
async def test_a_client_that_leaves_ends_its_request(visit: Visit, *, is_answering: bool) -> None:
    visit.send(GET)
    if is_answering:
        visit.instance.head()
    visit.lose(ConnectionResetError())

    (settled,) = visit.stage.observer.settled_ones
    assert Failure.CLIENT_GONE is settled.failure
    assert "closed" == visit.instance.ending
    visit.stage.assert_all_is_settled()


async def test_a_client_that_leaves_between_requests_is_no_matter(visit: Visit) -> None:
    visit.lose()

    assert [] == visit.stage.observer.settled_ones
    assert set() == visit.state.connections
    visit.stage.assert_all_is_settled()


# --- A mistake of ours ---------------------------------------------------------------------------


async def test_a_mistake_ends_the_connection_and_surfaces(visit: Visit) -> None:
    del visit.stage.engine.routes

    with pytest.raises(AttributeError):
        visit.send(GET)

    (answer,) = visit.answers(b"GET")
    assert (500, "aborted") == (answer.status, visit.transport.ending)
    assert [Failure.INTERNAL_ERROR] == [one.failure for one in visit.stage.observer.settled_ones]


async def test_a_mistake_in_the_next_request_ends_the_connection_too(visit: Visit) -> None:
    visit.send(GET + GET)
    del visit.stage.engine.routes

    with pytest.raises(AttributeError):
        visit.instance.answer()

    assert "aborted" == visit.transport.ending


async def test_breaking_down_between_requests_just_ends(visit: Visit) -> None:
    visit.connection.break_down(visit.stage.clock())

    assert ("aborted", []) == (visit.transport.ending, visit.stage.observer.settled_ones)


# --- Other protocols -----------------------------------------------------------------------------

OFFER = b"GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CLOSE_OFFER = OFFER.replace(b"Connection: Upgrade", b"Connection: Upgrade, close")


def switch(visit: Visit) -> None:
    """Let the instance switch protocols."""
    head = AnswerHead(101, b"Switching Protocols", lines_of([(b"Upgrade", b"websocket")]))
    head.has_body = False
    assert visit.instance.exchange is not None
    visit.instance.exchange.upstream_switched(head, visit.stage.clock())
    visit.connection.flush()


@pytest.mark.parametrize("offer", [OFFER, CLOSE_OFFER], ids=["", "close"])
async def test_nothing_passes_before_the_switch_and_everything_after_it(
    visit: Visit, offer: bytes
) -> None:
    visit.send(offer + b"early")
    visit.send(b"earlier")
    assert visit.instance.sent.endswith(b"\r\n\r\n")

    switch(visit)
    assert visit.instance.sent.endswith(b"\r\n\r\nearlyearlier")
    visit.send(b"later")
    visit.instance.body(b"from the instance")
    visit.connection.flush()

    assert visit.instance.sent.endswith(b"\r\n\r\nearlyearlierlater")
    assert visit.transport.written.endswith(b"Connection: Upgrade\r\n\r\nfrom the instance")


async def test_a_long_read_of_a_tunnel_waits_when_the_time_of_the_turn_is_over(
    visit: Visit,
) -> None:
    visit.send(OFFER)
    switch(visit)

    visit.stage.use_up_turn()
    visit.connection.data_received(b"x" * 2000)
    assert visit.instance.sent.endswith(b"\r\n\r\n")
    visit.stage.pass_turns()

    assert visit.instance.sent.endswith(b"\r\n\r\n" + b"x" * 2000)


async def test_bytes_that_come_after_the_end_of_a_tunnel_are_dropped(visit: Visit) -> None:
    visit.send(OFFER)
    switch(visit)
    visit.instance.end(NO_FIELDS)

    assert visit.transport.is_half_closed
    visit.connection.data_received(b"late")
    assert not visit.instance.sent.endswith(b"late")


async def test_an_offer_that_is_not_taken_is_a_request_like_any_other(visit: Visit) -> None:
    visit.stage.pools["a"].warm_up()
    visit.send(OFFER + GET)
    second = visit.answers_with(200, b"no")
    assert second.sent.startswith(b"GET /api/x")

    visit.answers_with(200, b"yes")
    assert [b"no", b"yes"] == [one.body for one in visit.answers(b"GET", b"GET")]


async def test_an_offer_that_is_not_taken_is_the_last_request_if_it_says_close(
    visit: Visit,
) -> None:
    visit.send(CLOSE_OFFER + GET)
    visit.send(GET)
    visit.answers_with(200, b"no")

    (answer,) = visit.answers(b"GET")
    assert (b"no", [b"close"]) == (answer.body, answer.values(b"connection"))
    assert 1 == len(visit.stage.pools["a"].made)
    assert visit.transport.ending or visit.transport.is_half_closed


async def test_a_client_that_leaves_a_tunnel_ends_it(visit: Visit) -> None:
    visit.send(OFFER)
    switch(visit)
    visit.lose()

    (settled,) = visit.stage.observer.settled_ones
    assert (None, "closed") == (settled.failure, visit.instance.ending)
    visit.stage.assert_all_is_settled()


async def test_a_tunnel_that_is_cut_ends_with_a_word_to_both_ends(visit: Visit) -> None:
    visit.send(OFFER)
    switch(visit)

    visit.connection.cut()

    assert visit.transport.written.endswith(b"\r\n\r\n\x88\x02\x03\xe9")
    assert visit.instance.sent.endswith(b"\r\n\r\n\x88\x82\0\0\0\0\x03\xe9")
    assert (True, "closed") == (visit.transport.is_half_closed, visit.instance.ending)
    assert "" == visit.transport.ending  # until the client ends too, or its time is over


# --- On real sockets -----------------------------------------------------------------------------


async def ask_over_a_socket(*, breaks_off: bool) -> bytes:
    """Ask for an answer whose end is that of its connection; give all that came of it."""
    stage = Stage()
    face, instance = Visit(stage).face, stage.pools["a"].warm_up()
    listener = await asyncio.get_running_loop().create_server(
        lambda: face(None, SharedState(), None), "127.0.0.1", 0
    )
    async with listener, RawClient(listener.sockets[0].getsockname()[1]) as client:
        await client.send(b"GET /api/x HTTP/1.0\r\n\r\n")
        await wait_until(lambda: instance.sent)
        instance.head()
        instance.body(b"some")
        assert instance.exchange is not None
        instance.exchange.client.flush()
        got = b""
        while not got.endswith(b"some"):
            got += await client.read_some()
        if breaks_off:
            instance.fail(Failure.UPSTREAM_BROKE_OFF)
        else:
            instance.end()
        while piece := await client.read_some():
            got += piece
        return got


LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_an_answer_that_ends_is_whole(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(ask_over_a_socket(breaks_off=False)).endswith(b"\r\n\r\nsome")


@LOOPS
def test_an_answer_that_breaks_off_is_no_whole_one(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with (
        asyncio.Runner(loop_factory=loop_factory) as runner,
        pytest.raises(ConnectionResetError),
    ):
        runner.run(ask_over_a_socket(breaks_off=True))


@pytest.mark.parametrize("unsent_bytes", [0, 10])
async def test_a_response_that_is_given_up_before_all_of_it_was_sent_does_not_look_whole(
    visit: Visit, unsent_bytes: int
) -> None:
    """The end of the connection would be the end of the response (HTTP/1.0, RFC 9112 §6.3)."""
    visit.transport.unsent_bytes = 10
    visit.send(b"GET /nowhere HTTP/1.0\r\nHost: a\r\n\r\n")
    visit.pass_time(3)
    assert "closed" == visit.transport.ending

    visit.transport.unsent_bytes = unsent_bytes
    visit.connection.drop()

    assert bool(unsent_bytes) is bool(visit.transport.sock.options)
