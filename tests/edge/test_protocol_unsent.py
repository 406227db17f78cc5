"""A client that takes nothing for a while: what is written meanwhile is joined, none is lost."""

from __future__ import annotations

from gateway.core.message import NO_FIELDS
from gateway.runtime.unsent import MOST_UNSENT_BYTES
from tests.fakes.visit import Visit

GET = b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def body_of(visit: Visit, request: bytes = b"GET") -> bytes:
    (answer,) = visit.answers(request)
    return answer.body


def drip(visit: Visit, count: int) -> None:
    for _ in range(count):
        visit.instance.body(b"x")
        visit.connection.flush()


async def test_tiny_pieces_for_a_client_that_takes_nothing_leave_as_one(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.connection.flush()
    visit.chokes(unsent_bytes=1)
    before = len(visit.transport.writes)

    drip(visit, 100)
    assert not visit.instance.is_paused, "a little may wait"
    assert before == len(visit.transport.writes)
    visit.takes_on()
    assert before + 1 == len(visit.transport.writes)
    drip(visit, 2)
    visit.instance.end(NO_FIELDS)
    visit.connection.flush()

    assert b"x" * 102 == body_of(visit)
    visit.lose()
    visit.stage.assert_all_is_settled()


async def test_the_instance_is_stopped_when_much_waits_and_goes_on_when_it_was_taken(
    visit: Visit,
) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.connection.flush()
    visit.chokes(unsent_bytes=1)

    visit.instance.body(b"x" * MOST_UNSENT_BYTES)
    visit.connection.flush()
    assert visit.instance.is_paused
    visit.transport.unsent_bytes = MOST_UNSENT_BYTES + 1  # what was joined is not taken either
    visit.connection.resume_writing()
    assert visit.instance.is_paused
    visit.takes_on()

    assert not visit.instance.is_paused


async def test_what_waits_leaves_before_the_connection_is_closed(visit: Visit) -> None:
    visit.send(LAST)
    visit.instance.head()
    visit.connection.flush()
    visit.chokes(unsent_bytes=1)

    drip(visit, 3)
    visit.instance.end(NO_FIELDS)
    visit.connection.flush()

    assert b"xxx" == body_of(visit)
    assert "closed" == visit.transport.ending


async def test_answers_to_pipelined_requests_are_joined_and_stop_at_much(visit: Visit) -> None:
    visit.chokes(unsent_bytes=1)

    visit.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
    assert b"" == visit.transport.written
    visit.stage.pass_turns()
    visit.takes_on()

    first = visit.transport.written.count(b"HTTP/1.1 404 ")
    assert MOST_UNSENT_BYTES - 1024 < len(visit.transport.written) < MOST_UNSENT_BYTES + 1024
    visit.stage.pass_turns()
    assert visit.transport.written.count(b"HTTP/1.1 404 ") > first


async def test_a_connection_that_is_reset_drops_what_waits(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.connection.flush()
    visit.chokes(unsent_bytes=1)
    drip(visit, 3)
    before = bytes(visit.transport.written)

    visit.connection.drop()

    assert ("aborted", before) == (visit.transport.ending, bytes(visit.transport.written))
