"""May it be sent again, to whom, and what is sent: a payment must not be made twice."""

from __future__ import annotations

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy, RetryPolicy
from tests.fakes.engine import Policies, Stage
from tests.fakes.sides import FakeConnection

SMALL_BUFFER = Policies(retry=RetryPolicy(buffer_bytes=8))
IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE", b"QUERY")
ONCE_SENT = (Failure.DISCONNECTED_EARLY, Failure.BAD_RESPONSE, Failure.STALE_CONNECTION)


def body_of(connection: FakeConnection) -> bytes:
    return bytes(connection.sent).partition(b"\r\n\r\n")[2]


def tried(stage: Stage) -> str:
    return "".join(key for key, pool in stage.pools.items() if pool.asked_fresh)


# --- To whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_whoever_cannot_be_reached_is_followed_by_the_next(method: bytes) -> None:
    stage = Stage()
    play = stage.begin(method)

    stage.pools["a"].refuse()
    stage.pools["b"].refuse(Failure.TLS_FAILED)
    stage.pools["c"].connect().answer()

    assert ["head 200", "body", "end"] == play.client.said
    assert None is play.exchange.failure
    assert "<Attempts 3 tried, 2 failed>" == repr(play.exchange.attempts)
    stage.assert_all_is_settled()


def test_a_service_of_which_nobody_can_be_reached_is_unavailable() -> None:
    stage = Stage()
    play = stage.begin()

    for key in "abc":
        stage.pools[key].refuse()

    assert ["head 503", "body", "end"] == play.client.said
    assert b"all_unreachable" == play.client.reason
    stage.assert_all_is_settled()


def test_more_instances_than_attempts_is_the_last_failure() -> None:
    stage = Stage("abcd")
    play = stage.begin()

    for key in "abc":
        stage.pools[key].refuse()

    assert b"connect_failed" == play.client.reason
    assert "abc" == tried(stage)


def test_an_instance_whose_breaker_is_open_is_passed_over() -> None:
    stage = Stage()
    stage.open_breaker("b")
    stage.begin()

    stage.pools["a"].refuse()

    assert "ac" == tried(stage)


@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("failure", [Failure.DISCONNECTED_EARLY, Failure.BAD_RESPONSE])
def test_idempotent_requests_go_to_the_next_instance(method: bytes, failure: Failure) -> None:
    stage = Stage()
    play, first = stage.sending(method)

    first.fail(failure)
    second = stage.pools["b"].connect()
    second.answer()

    assert ["head 200", "body", "end"] == play.client.said
    assert first.sent == second.sent
    stage.assert_all_is_settled()


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"MKCOL"])
@pytest.mark.parametrize("failure", ONCE_SENT)
def test_nothing_else_is_sent_again_after_anything_was_sent(
    method: bytes, failure: Failure
) -> None:
    stage = Stage()
    play, connection = stage.sending(method)

    connection.fail(failure)

    assert ["head 502", "body", "end"] == play.client.said
    assert "a" == tried(stage)
    assert [False] == stage.pools["a"].asked_fresh


def test_post_is_not_sent_again_after_a_head_timeout() -> None:
    stage = Stage()
    play, _ = stage.sending(b"POST")

    stage.pass_time(15.0)

    assert b"head_timeout" == play.client.reason
    assert "a" == tried(stage)


def test_get_goes_on_after_a_head_timeout() -> None:
    stage = Stage()
    play, slow = stage.sending(b"GET")

    stage.pass_time(15.0)
    stage.pools["b"].connect().answer()

    assert "closed" == slow.ending
    assert ["head 200", "body", "end"] == play.client.said


# --- Retriable statuses --------------------------------------------------------------------------


def test_a_retriable_status_goes_to_the_next_instance_unseen() -> None:
    stage = Stage()
    play, refusing = stage.sending()

    refusing.answer(503)
    stage.pools["b"].connect().answer()

    assert ["head 200", "body", "end"] == play.client.said
    assert "closed" == refusing.ending
    assert [Failure.RETRIABLE_STATUS] == [one.failure for one in play.exchange.attempts.failed]
    stage.assert_all_is_settled()


def test_a_retriable_status_goes_to_an_idle_connection_at_once() -> None:
    stage = Stage()
    warm = stage.pools["b"].warm_up()
    play, refusing = stage.sending()

    refusing.answer(503)
    warm.answer()

    assert ["head 200", "body", "end"] == play.client.said
    stage.assert_all_is_settled()


def test_the_last_candidates_status_is_passed_on() -> None:
    stage = Stage("ab")
    play, first = stage.sending()

    first.answer(503)
    stage.pools["b"].connect().answer(504, b"late")

    assert ["head 504", "body", "end"] == play.client.said
    assert b"late" == bytes(play.client.body)
    assert 2 == len(play.exchange.attempts.failed)
    stage.assert_all_is_settled()


def test_a_retriable_status_to_post_is_passed_on_and_counts() -> None:
    stage = Stage("ab", Policies(breaker=BreakerPolicy(consecutive_failures=1)))
    play, connection = stage.sending(b"POST")

    connection.answer(503)

    assert ["head 503", "body", "end"] == play.client.said
    assert "a" == tried(stage)
    assert BreakerState.OPEN is stage.breaker_state("a")


# --- Stale connections ---------------------------------------------------------------------------


def test_a_stale_connection_means_the_same_instance_on_a_fresh_one_uncounted() -> None:
    stage = Stage("ab", Policies(breaker=BreakerPolicy(consecutive_failures=1)))
    stale = stage.pools["a"].warm_up()
    play = stage.begin()

    stale.fail(Failure.STALE_CONNECTION)
    stage.pools["a"].connect().answer()

    assert [False, True] == stage.pools["a"].asked_fresh
    assert ["head 200", "body", "end"] == play.client.said
    assert [] == play.exchange.attempts.failed
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_stale_connection_is_not_a_failover_even_with_one_attempt() -> None:
    stage = Stage("ab", Policies(retry=RetryPolicy(attempts=1)))
    stale = stage.pools["a"].warm_up()
    play = stage.begin()

    stale.fail(Failure.STALE_CONNECTION)
    stage.pools["a"].connect().answer()

    assert ["head 200", "body", "end"] == play.client.said


def test_a_stale_connection_to_an_instance_that_was_left_alone_meanwhile_means_the_next() -> None:
    stage = Stage("ab")
    stale = stage.pools["a"].warm_up()
    play = stage.begin()
    stage.open_breaker("a")

    stale.fail(Failure.STALE_CONNECTION)
    stage.pools["b"].connect().answer()

    assert ["head 200", "body", "end"] == play.client.said
    stage.assert_all_is_settled()


# --- What is sent --------------------------------------------------------------------------------


def test_a_body_with_a_length_is_replayed_whole() -> None:
    stage = Stage()
    play, first = stage.sending(b"PUT", 8)
    stage.send(play, b"half")
    stage.send(play, b"half")
    stage.send_end(play)

    first.fail()
    second = stage.pools["b"].connect()
    second.answer()

    assert b"halfhalf" == body_of(second)
    assert first.sent == second.sent
    assert ["head 200", "body", "end"] == play.client.said
    stage.assert_all_is_settled()


def test_a_chunked_body_is_replayed_with_its_trailers() -> None:
    stage = Stage()
    play, first = stage.sending(b"PUT", None)
    stage.send(play, b"half")
    stage.send(play, b"the rest of it")
    stage.send_end(play, [(b"Checksum", b"1"), (b"Host", b"evil")])

    first.fail()
    second = stage.pools["b"].connect()

    assert b"4\r\nhalf\r\ne\r\nthe rest of it\r\n0\r\nChecksum: 1\r\n\r\n" == body_of(first)
    assert b"12\r\nhalfthe rest of it\r\n0\r\nChecksum: 1\r\n\r\n" == body_of(second)


def test_a_replay_goes_on_with_what_comes_later() -> None:
    stage = Stage()
    play, first = stage.sending(b"PUT", None)
    stage.send(play, b"one")

    first.fail()
    stage.send(play, b"two")
    second = stage.pools["b"].connect()
    stage.send(play, b"three")
    stage.send_end(play)
    second.answer()

    assert b"6\r\nonetwo\r\n5\r\nthree\r\n0\r\n\r\n" == body_of(second)
    assert "reusable" == second.ending
    assert ["head 200", "body", "end"] == play.client.said


def test_post_whose_connection_could_not_be_made_is_sent_with_its_whole_body() -> None:
    stage = Stage()
    play = stage.begin(b"POST", 4)
    stage.send(play, b"body")
    stage.send_end(play)

    stage.pools["a"].refuse()
    connection = stage.pools["b"].connect()
    connection.answer()

    assert b"body" == body_of(connection)
    assert ["head 200", "body", "end"] == play.client.said


def test_a_body_longer_than_the_buffer_streams_and_is_not_replayed() -> None:
    stage = Stage("abc", SMALL_BUFFER)
    play, connection = stage.sending(b"PUT", 12)
    for _ in range(3):
        stage.send(play, b"four")
    stage.send_end(play)
    assert b"fourfourfour" == body_of(connection)
    assert not play.client.is_paused

    connection.fail()

    assert b"disconnected_early" == play.client.reason
    assert "a" == tried(stage)
    stage.assert_all_is_settled()


def test_a_body_that_just_fits_the_buffer_is_replayed() -> None:
    stage = Stage("abc", SMALL_BUFFER)
    play, first = stage.sending(b"PUT", 8)
    stage.send(play, b"8 bytes!")
    stage.send_end(play)

    first.fail()

    assert b"8 bytes!" == body_of(stage.pools["b"].connect())


@pytest.mark.parametrize(
    ("method", "length", "expected"),
    [
        (b"GET", 0, True),
        (b"PUT", 8, True),
        (b"PUT", 9, False),
        (b"PUT", None, False),
        (b"POST", 0, False),
        (b"POST", 8, False),
    ],
)
def test_pools_are_told_whether_a_request_can_be_sent_again_with_its_body(
    method: bytes, length: int | None, *, expected: bool
) -> None:
    """One that cannot must not meet a connection that may be closed at the other end."""
    play = Stage("a", SMALL_BUFFER).begin(method, length)

    assert expected is play.exchange.is_repeatable


def test_a_long_body_waits_for_the_connection_and_is_let_go_when_it_is_sent() -> None:
    stage = Stage("abc", SMALL_BUFFER)
    play = stage.begin(b"PUT", 18)
    stage.send(play, b"nine byte")
    assert play.client.is_paused

    stage.pools["a"].refuse()
    connection = stage.pools["b"].connect()

    assert b"nine byte" == body_of(connection)
    assert not play.client.is_paused
    assert "<Upload 9 of 18, not kept>" == repr(play.exchange.upload)
    connection.fail()
    assert b"send_failed" == play.client.reason
    assert "ab" == tried(stage)


def test_an_empty_piece_does_not_end_a_chunked_body() -> None:
    stage = Stage()
    play, connection = stage.sending(b"POST", None)

    stage.send(play, b"one")
    stage.send(play, b"")
    stage.send(play, b"two")
    stage.send_end(play)

    assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" == body_of(connection)
