"""Who waits for whom: back-pressure, clients that leave, early answers, our own mistakes."""

from __future__ import annotations

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy, RetryPolicy
from gateway.proxy.phase import Phase
from tests.fakes.engine import Policies, Stage
from tests.fakes.sides import FakeClient

ONE_STRIKE = Policies(breaker=BreakerPolicy(consecutive_failures=1))

# --- The client leaves ---------------------------------------------------------------------------


def test_a_client_that_leaves_while_connecting_cancels_it() -> None:
    stage = Stage("abc", ONE_STRIKE)
    play = stage.begin()

    play.exchange.client_gone(stage.clock())

    assert ["abort"] == play.client.said
    assert (Failure.CLIENT_GONE, 0) == (play.exchange.failure, play.exchange.status)
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_client_that_leaves_while_waiting_ends_the_attempt_and_blames_nobody(
    method: bytes,
) -> None:
    stage = Stage("abc", ONE_STRIKE)
    play, connection = stage.sending(method)

    play.exchange.client_gone(stage.clock())

    assert ["abort"] == play.client.said
    assert "closed" == connection.ending
    assert [] == play.exchange.attempts.failed
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_client_that_leaves_inside_the_answer_ends_it_and_blames_nobody() -> None:
    stage = Stage("abc", ONE_STRIKE)
    play, connection = stage.relaying()

    play.exchange.client_gone(stage.clock())

    assert ["head 200", "abort"] == play.client.said
    assert "closed" == connection.ending
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_client_that_leaves_before_its_request_began_is_settled() -> None:
    stage = Stage()
    client = FakeClient()
    exchange = stage.engine.exchange(stage.request(), client)

    exchange.client_gone(stage.clock())

    assert ["abort"] == client.said
    assert [exchange] == stage.observer.settled_ones
    stage.assert_all_is_settled()


def test_what_happens_to_a_client_after_its_answer_changes_nothing() -> None:
    stage = Stage()
    play, connection = stage.sending()
    connection.answer()

    play.exchange.client_gone(stage.clock())
    play.exchange.client_failed(Failure.BAD_REQUEST, "garbage", stage.clock())
    play.exchange.break_down(stage.clock())

    assert ["head 200", "body", "end"] == play.client.said
    assert None is play.exchange.failure


def test_a_client_that_leaves_after_a_failed_attempt_is_logged_with_it() -> None:
    stage = Stage()
    play = stage.begin()
    stage.pools["a"].refuse()

    play.exchange.client_gone(stage.clock())

    assert Failure.CLIENT_GONE is play.exchange.failure
    assert ["a"] == [one.member.instance.key for one in play.exchange.attempts.failed]
    stage.assert_all_is_settled()


# --- The client sends what it may not ------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[b"longer"], [b"four", b"5"]])
def test_a_body_longer_than_it_says_is_never_passed_on_whole(chunks: list[bytes]) -> None:
    stage = Stage()
    play, connection = stage.sending(b"PUT", 4)

    for chunk in chunks:
        stage.send(play, chunk)

    assert ["head 400", "body", "end"] == play.client.said
    assert "closed" == connection.ending
    assert b"longer" not in connection.sent
    stage.assert_all_is_settled()


def test_a_body_longer_than_it_says_is_noticed_before_there_is_a_connection() -> None:
    stage = Stage()
    play = stage.begin(b"PUT", 4)

    stage.send(play, b"longer")

    assert b"bad_request" == play.client.reason
    stage.assert_all_is_settled()


def test_a_body_shorter_than_it_says_is_not_passed_off_as_whole() -> None:
    stage = Stage()
    play, connection = stage.sending(b"PUT", 4)
    stage.send(play, b"3 b")

    stage.send_end(play)

    assert b"bad_request" == play.client.reason
    assert "closed" == connection.ending


def test_a_broken_upload_behind_the_head_of_the_answer_cuts_the_client_off() -> None:
    stage = Stage("abc", ONE_STRIKE)
    play, _ = stage.relaying(b"POST", None)

    play.exchange.client_failed(Failure.BAD_REQUEST, "garbage", stage.clock())

    assert ["head 200", "abort"] == play.client.said
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_broken_upload_before_any_answer_is_refused() -> None:
    stage = Stage()
    play, connection = stage.sending(b"POST", None)

    play.exchange.client_failed(Failure.BODY_TOO_LARGE, "more than 1 MB", stage.clock())

    assert ["head 413", "body", "end"] == play.client.said
    assert "closed" == connection.ending


def test_what_comes_of_a_body_after_the_end_is_ignored() -> None:
    stage = Stage()
    play, connection = stage.relaying(b"POST", None)
    connection.end()

    stage.send(play, b"rest")
    stage.send_end(play)

    assert ["head 200", "end"] == play.client.said


def test_the_end_of_a_body_that_there_is_not_is_ignored() -> None:
    stage = Stage()
    play, connection = stage.sending()
    before = bytes(connection.sent)

    stage.send_end(play)

    assert before == bytes(connection.sent)
    assert not play.client.is_over


# --- A slow client -------------------------------------------------------------------------------


def test_a_client_that_takes_no_more_stops_the_answer_from_being_read() -> None:
    stage = Stage()
    play, connection = stage.relaying()

    play.exchange.client_paused()
    assert connection.is_paused
    play.exchange.client_resumed(stage.clock())

    assert not connection.is_paused


@pytest.mark.parametrize("moment", ["connecting", "sending"])
def test_a_client_that_takes_no_more_before_the_head_stops_only_the_body(moment: str) -> None:
    """If the head were not read either, its instance would be blamed for a timeout."""
    stage = Stage()
    play = stage.begin()
    if moment == "connecting":
        play.exchange.client_paused()
        connection = stage.pools["a"].connect()
    else:
        connection = stage.pools["a"].connect()
        play.exchange.client_paused()
    assert not connection.is_paused

    connection.head()

    assert connection.is_paused


def test_a_client_that_takes_more_again_before_the_head_has_stopped_nothing() -> None:
    stage = Stage()
    play, connection = stage.sending()
    play.exchange.client_paused()
    play.exchange.client_resumed(stage.clock())

    connection.head()

    assert not connection.is_paused


def test_what_a_client_does_after_its_answer_touches_no_connection() -> None:
    stage = Stage()
    play, connection = stage.relaying()
    connection.end()

    play.exchange.client_paused()
    play.exchange.client_resumed(stage.clock())

    assert "reusable" == connection.ending


# --- A slow instance -----------------------------------------------------------------------------


def test_an_instance_that_takes_no_more_stops_the_client_from_being_read() -> None:
    stage = Stage()
    play, connection = stage.sending(b"PUT", None)

    connection.pauses()
    assert play.client.is_paused
    connection.resumes()

    assert not play.client.is_paused


def test_an_instance_that_takes_no_more_of_a_whole_request_stops_nobody() -> None:
    stage = Stage()
    play, connection = stage.sending()

    connection.pauses()
    connection.resumes()

    assert not play.client.is_paused


def test_a_client_whose_body_ended_while_it_was_paused_is_read_again() -> None:
    """Or nobody would see it leave while it waits for its answer."""
    stage = Stage()
    play, connection = stage.sending(b"PUT", None)
    connection.pauses()
    stage.send_end(play)

    connection.resumes()

    assert not play.client.is_paused


def test_failover_reads_on_from_a_client_that_the_failed_instance_had_paused() -> None:
    stage = Stage()
    play, slow = stage.sending(b"PUT", None)
    stage.send(play, b"some")
    slow.pauses()

    slow.fail()
    stage.pools["b"].connect()

    assert not play.client.is_paused


def test_a_connection_that_takes_no_more_than_the_kept_body_leaves_the_client_paused() -> None:
    stage = Stage("abc", Policies(retry=RetryPolicy(buffer_bytes=1)))
    play = stage.begin(b"PUT", None)
    stage.send(play, b"some")

    connection = stage.pools["a"].connect(chokes=True)
    assert play.client.is_paused
    connection.resumes()

    assert not play.client.is_paused


def test_a_connection_with_unsent_bytes_is_not_used_again() -> None:
    """The next exchange on it would not know that it takes no more."""
    stage = Stage()
    play, connection = stage.sending(b"PUT", None)
    connection.pauses()
    stage.send_end(play)

    connection.answer()

    assert ["head 200", "body", "end"] == play.client.said
    assert "closed" == connection.ending


# --- Early answers -------------------------------------------------------------------------------


def test_an_early_answer_is_relayed_while_the_body_goes_on() -> None:
    stage = Stage()
    play, connection = stage.relaying(b"POST", None)
    stage.send(play, b"more")
    assert "<Upload 4 of None, not kept>" == repr(play.exchange.upload)
    connection.body(b"echo")
    stage.send_end(play)

    connection.end()

    assert ["head 200", "body", "end"] == play.client.said
    assert connection.sent.endswith(b"4\r\nmore\r\n0\r\n\r\n")
    assert "reusable" == connection.ending
    stage.assert_all_is_settled()


def test_an_early_answer_that_ends_inside_the_upload_costs_the_connection() -> None:
    stage = Stage()
    play, connection = stage.sending(b"POST", 100)
    stage.send(play, b"some")

    connection.answer(413)

    assert ["head 413", "body", "end"] == play.client.said
    assert "closed" == connection.ending
    stage.assert_all_is_settled()


def test_an_early_retriable_status_moves_the_upload_to_the_next_instance() -> None:
    stage = Stage()
    play, busy = stage.sending(b"PUT", 8)
    stage.send(play, b"half")

    busy.head(503)
    connection = stage.pools["b"].connect()
    stage.send(play, b"half")
    stage.send_end(play)
    connection.answer()

    assert "closed" == busy.ending
    assert connection.sent.endswith(b"\r\n\r\nhalfhalf")
    assert ["head 200", "body", "end"] == play.client.said
    stage.assert_all_is_settled()


# --- Our own mistakes ----------------------------------------------------------------------------


def test_a_mistake_of_ours_before_the_head_is_a_500_and_blames_nobody() -> None:
    stage = Stage("abc", ONE_STRIKE)
    play, connection = stage.sending()

    play.exchange.break_down(stage.clock())

    assert ["head 500", "body", "end"] == play.client.said
    assert b"internal_error" == play.client.reason
    assert "closed" == connection.ending
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_mistake_of_ours_behind_the_head_cuts_the_client_off() -> None:
    stage = Stage("abc", ONE_STRIKE)
    play, connection = stage.relaying()

    play.exchange.break_down(stage.clock())

    assert ["head 200", "abort"] == play.client.said
    assert (Failure.INTERNAL_ERROR, Phase.SETTLED) == (play.exchange.failure, play.exchange.phase)
    assert "closed" == connection.ending
    stage.assert_all_is_settled()
