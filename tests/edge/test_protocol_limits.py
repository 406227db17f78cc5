"""The fast face over time: how long things may take, who waits for whom, and how it ends."""

from __future__ import annotations

from math import inf

from gateway.core.failure import Failure
from gateway.edge.face import FaceOptions
from tests.fakes.engine import Stage
from tests.fakes.visit import Visit

GET = b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /api/up HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
HEAD_TIMEOUT_S = FaceOptions().head_timeout_s
KEEPALIVE_TIMEOUT_S = FaceOptions().keepalive_timeout_s


def reasons(visit: Visit) -> list[bytes]:
    """Give the reason of the one answer that was written."""
    (answer,) = visit.answers(b"GET")
    return answer.values(b"x-gateway-reason")


# --- How long ------------------------------------------------------------------------------------


async def test_a_new_client_that_sends_nothing_has_the_time_of_a_head(visit: Visit) -> None:
    """It has shown nothing that would be worth as much room as a client that comes back."""
    visit.pass_time(HEAD_TIMEOUT_S - 0.1)
    assert "" == visit.transport.ending

    visit.pass_time(0.2)
    assert ("closed", b"") == (visit.transport.ending, bytes(visit.transport.written))


async def test_a_head_that_drips_has_its_time_from_its_first_byte(visit: Visit) -> None:
    visit.pass_time(HEAD_TIMEOUT_S - 1)
    for byte in b"GET / HTTP":
        visit.send(bytes([byte]))
        visit.pass_time(HEAD_TIMEOUT_S / 10 - 0.01)
    assert b"" == visit.transport.written

    visit.send(b"/")
    visit.pass_time(0.2)

    assert [b"request_timeout"] == reasons(visit)
    assert visit.transport.is_half_closed
    visit.pass_time(2.1)
    assert "aborted" == visit.transport.ending


async def test_the_time_of_the_next_head_is_its_own(visit: Visit) -> None:
    visit.send(GET[:5])
    visit.pass_time(HEAD_TIMEOUT_S - 1)
    visit.send(GET[5:] + GET[:5])
    visit.pass_time(5)  # the answer may take longer than a head
    visit.answers_with()

    visit.pass_time(HEAD_TIMEOUT_S - 1)
    assert "" == visit.transport.ending
    visit.pass_time(1.1)
    assert [200, 408] == [one.status for one in visit.answers(b"GET", b"GET")]


async def test_a_connection_is_idle_from_the_end_of_its_last_answer(visit: Visit) -> None:
    visit.pass_time(HEAD_TIMEOUT_S - 1)
    visit.send(GET)
    visit.pass_time(10)
    visit.answers_with()

    visit.pass_time(KEEPALIVE_TIMEOUT_S - 1)
    assert "" == visit.transport.ending
    visit.pass_time(1.1)
    assert "closed" == visit.transport.ending
    visit.stage.assert_all_is_settled()


async def test_a_client_that_does_not_read_the_end_of_its_answer_is_not_kept(visit: Visit) -> None:
    visit.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    visit.transport.unsent_bytes = 100
    visit.answers_with()

    visit.pass_time(2.1)
    visit.pass_time(KEEPALIVE_TIMEOUT_S - 0.1)
    assert "closed" == visit.transport.ending

    visit.pass_time(0.2)
    assert "aborted" == visit.transport.ending
    visit.stage.assert_all_is_settled()


async def test_a_request_that_waits_for_its_turn_makes_its_connection_busy(visit: Visit) -> None:
    """Neither a drain nor its keep-alive ends it, and it gives way to nobody."""
    visit.stage.use_up_turn()
    visit.connection.data_received(GET.replace(b"Host", b"X: %b\r\nHost" % (b"x" * 1024)))
    assert b"" == visit.transport.written
    assert inf == visit.connection.spare_since_s
    visit.stage.pass_time(HEAD_TIMEOUT_S + 1)
    assert "" == visit.transport.ending

    visit.stage.pass_turns()
    visit.answers_with()
    assert [200] == [one.status for one in visit.answers(b"GET")]


# --- Who waits for whom --------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_the_instance(visit: Visit) -> None:
    visit.send(GET)
    visit.instance.head()

    visit.chokes()
    assert visit.instance.is_paused
    visit.takes_on()
    assert not visit.instance.is_paused


async def test_an_instance_that_does_not_read_stops_the_client(visit: Visit) -> None:
    visit.send(UPLOAD)

    visit.instance.pauses()
    assert not visit.transport.is_read
    visit.instance.resumes()
    assert visit.transport.is_read


async def test_reading_goes_on_after_an_upload_that_was_stopped(visit: Visit) -> None:
    visit.send(UPLOAD.replace(b"300000", b"5"), b"01234")
    visit.stage.pools["a"].warm_up()
    visit.connection.pause_reading()
    visit.answers_with()

    visit.send(GET)
    assert visit.next_connection().sent.startswith(b"GET /api/x")


async def test_answers_do_not_pile_up_for_a_client_that_does_not_read(visit: Visit) -> None:
    visit.stage.pools["a"].warm_up()
    visit.send(GET + GET)
    visit.chokes()
    visit.answers_with()
    assert 1 == len(visit.stage.pools["a"].made)

    visit.takes_on()
    assert 2 == len(visit.stage.pools["a"].made)
    assert visit.transport.is_read


async def test_a_client_is_read_no_further_when_much_waits_behind_its_request(
    visit: Visit,
) -> None:
    """A little is read on, for only so it can be seen to leave."""
    visit.stage.pools["a"].warm_up()
    visit.send(GET + GET)
    assert visit.transport.is_read

    visit.send(b"GET /api/long HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 16384))
    assert not visit.transport.is_read

    visit.answers_with()
    visit.stage.pools["a"].warm_up()
    visit.answers_with()
    assert visit.transport.is_read


async def test_a_client_that_does_not_read_gets_no_further_request_started(visit: Visit) -> None:
    visit.send(GET)
    visit.answers_with()
    visit.stage.pools["a"].warm_up()
    visit.chokes()

    visit.send(GET, GET)
    assert 1 == len(visit.stage.pools["a"].made)

    visit.pass_time(KEEPALIVE_TIMEOUT_S + 0.1)
    assert visit.transport.is_half_closed
    visit.takes_on()
    assert 1 == len(visit.stage.pools["a"].made)


# --- How many ------------------------------------------------------------------------------------


async def test_there_are_so_many_connections_at_all_listeners_and_no_more(stage: Stage) -> None:
    first = Visit(stage, options=FaceOptions(max_connections=1, grace_s=inf))

    second = Visit(beside=first)
    assert [b"over_capacity"] == reasons(second)
    second.lose()
    first.send(GET)
    first.lose()

    third = Visit(beside=first)
    assert b"" == third.transport.written


async def test_an_idle_connection_gives_way_to_a_new_one_and_is_closed_cleanly(
    stage: Stage,
) -> None:
    first = Visit(stage, options=FaceOptions(max_connections=1))
    stage.pools["a"].warm_up()
    first.send(GET)
    first.answers_with()

    second = Visit(beside=first)
    assert "closed" == first.transport.ending
    assert b"" == second.transport.written
    first.lose()

    second.send(GET)
    assert [b"over_capacity"] == reasons(Visit(beside=second))  # it has a request in hand


async def test_one_that_has_asked_for_nothing_yet_keeps_its_place_for_a_moment(
    stage: Stage,
) -> None:
    kept = Visit(stage, options=FaceOptions(max_connections=1, grace_s=inf))
    assert [b"over_capacity"] == reasons(Visit(beside=kept))

    late = Visit(stage, options=FaceOptions(max_connections=1, grace_s=0.0))
    assert b"" == Visit(beside=late).transport.written
    assert "closed" == late.transport.ending


async def test_there_are_so_many_connections_from_one_address_and_no_more(stage: Stage) -> None:
    first = Visit(stage, options=FaceOptions(max_connections_per_address=1))

    second = Visit(beside=first)
    elsewhere = Visit(beside=first, peername=("192.0.2.2", 1))
    assert [b"over_capacity"] == reasons(second)
    assert b"" == elsewhere.transport.written

    second.lose()
    assert [b"over_capacity"] == reasons(Visit(beside=first))


async def test_a_connection_carries_so_many_requests_and_no_more(stage: Stage) -> None:
    visit = Visit(stage, options=FaceOptions(max_requests_per_connection=2))
    stage.pools["a"].warm_up()

    visit.send(GET + GET + GET)
    visit.answers_with()
    visit.answers_with()

    answers = visit.answers(b"GET", b"GET")
    assert [[], [b"close"]] == [one.values(b"connection") for one in answers]
    # The third was here already: closing at once would destroy the second answer.
    assert (True, "") == (visit.transport.is_half_closed, visit.transport.ending)
    assert visit.transport.is_read


# --- The end -------------------------------------------------------------------------------------


async def test_draining_asks_clients_to_come_back_elsewhere(visit: Visit) -> None:
    visit.face.is_draining = True
    visit.send(GET)
    visit.answers_with()

    (answer,) = visit.answers(b"GET")
    assert ([b"close"], "closed") == (answer.values(b"connection"), visit.transport.ending)


async def test_a_shutdown_closes_what_is_idle(visit: Visit) -> None:
    visit.connection.shutdown()

    assert "closed" == visit.transport.ending


async def test_a_shutdown_lets_a_request_finish_and_takes_no_other(visit: Visit) -> None:
    visit.send(GET + GET)
    visit.connection.shutdown()
    assert "" == visit.transport.ending

    visit.answers_with(200, b"finished")
    (answer,) = visit.answers(b"GET")
    assert (b"finished", [b"close"]) == (answer.body, answer.values(b"connection"))
    assert 1 == len(visit.stage.pools["a"].made)


async def test_a_shutdown_lets_what_lingers_linger(visit: Visit) -> None:
    visit.send(b"junk")
    visit.connection.shutdown()

    assert (True, "") == (visit.transport.is_half_closed, visit.transport.ending)


async def test_what_has_no_answer_when_the_time_is_over_gets_one(visit: Visit) -> None:
    visit.send(GET)
    visit.connection.cut()

    assert [b"draining"] == reasons(visit)
    assert "closed" == visit.instance.ending


async def test_what_is_in_the_middle_of_its_answer_when_the_time_is_over_is_reset(
    visit: Visit,
) -> None:
    visit.send(GET)
    visit.instance.head()
    visit.connection.cut()

    assert [Failure.DRAINING] == [one.failure for one in visit.stage.observer.settled_ones]
    assert ("aborted", 1) == (visit.transport.ending, len(visit.transport.sock.options))


async def test_what_has_nothing_in_hand_when_the_time_is_over_is_closed(visit: Visit) -> None:
    visit.connection.cut()
    assert ("closed", b"") == (visit.transport.ending, bytes(visit.transport.written))


async def test_a_head_that_is_not_whole_when_the_time_is_over_is_refused(visit: Visit) -> None:
    visit.send(GET[:10])
    visit.connection.cut()

    assert [b"draining"] == reasons(visit)
    visit.connection.drop()
    assert "aborted" == visit.transport.ending


async def test_the_answer_in_hand_says_close_when_the_gateway_begins_to_stop(visit: Visit) -> None:
    visit.send(GET)
    visit.connection.finish()
    visit.answers_with()

    (answer,) = visit.answers(b"GET")
    assert [b"close"] == answer.values(b"connection")


async def test_behind_a_response_whose_head_has_left_the_next_request_is_answered(
    visit: Visit,
) -> None:
    """Its client may have sent that before it could know of anything."""
    visit.send(GET)
    visit.instance.head()
    visit.connection.finish()
    visit.instance.body(b"12345")
    visit.instance.end()
    assert visit.transport.ending == ""

    visit.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")

    assert [200, 404] == [one.status for one in visit.answers(b"GET", b"GET")]


async def test_an_idle_connection_stays_when_the_gateway_begins_to_stop(visit: Visit) -> None:
    visit.connection.finish()
    visit.send(GET)
    visit.answers_with()

    assert [200] == [one.status for one in visit.answers(b"GET")]


async def test_a_connection_knows_since_when_it_is_idle(visit: Visit) -> None:
    begun_s = visit.stage.clock()
    assert begun_s == visit.connection.idle_since_s
    visit.pass_time(3)
    visit.send(GET[:5])
    assert inf == visit.connection.idle_since_s
    visit.send(GET[5:])
    assert inf == visit.connection.idle_since_s

    visit.answers_with()

    assert begun_s + 3 == visit.connection.idle_since_s
    visit.connection.shutdown()
    assert inf == visit.connection.idle_since_s
