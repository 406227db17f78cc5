"""Every timeout of an Exchange: when it passes, whose fault it is, and what never expires."""

from __future__ import annotations

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy, Timeouts
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeClient, FakeConnection

ONE_STRIKE = BreakerPolicy(consecutive_failures=1)


def test_connect_timeout() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(connect_s=2.0), breaker=ONE_STRIKE))
    play = stage.begin()
    stage.pass_time(1.9)
    assert [] == play.client.said

    stage.pass_time(0.1)

    assert ["head 504", "body", "end"] == play.client.said
    assert b"connect_timeout" == play.client.reason
    assert BreakerState.OPEN is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_head_timeout_begins_with_the_last_byte_of_the_request() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(response_s=15.0), breaker=ONE_STRIKE))
    play, connection = stage.sending(b"POST", 4)
    stage.pass_time(50.0)
    stage.send(play, b"body")
    stage.send_end(play)
    stage.pass_time(14.9)
    assert [] == play.client.said

    stage.pass_time(0.1)

    assert ["head 504", "body", "end"] == play.client.said
    assert b"head_timeout" == play.client.reason
    assert "closed" == connection.ending
    assert BreakerState.OPEN is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_request_deadline_holds_over_all_attempts_and_is_the_end() -> None:
    policies = Policies(timeouts=Timeouts(response_s=4.0, request_s=6.0))
    stage = Stage("abc", policies)
    play, _ = stage.sending()
    stage.pass_time(4.0)
    stage.pools["b"].connect()

    stage.pass_time(2.0)

    assert ["head 504", "body", "end"] == play.client.said
    assert b"request_deadline" == play.client.reason
    failed = [one.failure for one in play.exchange.attempts.failed]
    assert [Failure.HEAD_TIMEOUT, Failure.REQUEST_DEADLINE] == failed
    assert [] == stage.pools["c"].asked_fresh
    stage.assert_all_is_settled()


def test_request_deadline_blames_who_had_the_time_and_not_who_came_last() -> None:
    policies = Policies(timeouts=Timeouts(response_s=4.0, request_s=5.0), breaker=ONE_STRIKE)
    stage = Stage("ab", policies)
    play, _ = stage.sending()
    stage.pass_time(4.0)
    stage.pools["b"].connect()

    stage.pass_time(1.0)

    assert b"request_deadline" == play.client.reason
    failed = [one.failure for one in play.exchange.attempts.failed]
    assert [Failure.HEAD_TIMEOUT, Failure.REQUEST_DEADLINE] == failed
    assert BreakerState.OPEN is stage.breaker_state("a")
    assert 0 == stage.member("b").breaker.failures_in_a_row
    stage.assert_all_is_settled()


@pytest.mark.parametrize(("body_after_s", "is_blamed"), [(5.9, False), (1.0, True)])
def test_request_deadline_is_no_fault_of_an_instance_whose_client_was_late(
    body_after_s: float, *, is_blamed: bool
) -> None:
    policies = Policies(timeouts=Timeouts(request_s=6.0), breaker=ONE_STRIKE)
    stage = Stage("a", policies)
    play, _ = stage.sending(b"POST", 4)
    stage.pass_time(body_after_s)
    stage.send(play, b"body")
    stage.send_end(play)

    stage.pass_time(6.0 - body_after_s)

    assert b"request_deadline" == play.client.reason
    assert is_blamed == (BreakerState.OPEN is stage.breaker_state("a"))
    stage.assert_all_is_settled()


def test_request_deadline_inside_the_answer_cuts_the_client_off() -> None:
    stage = Stage("abc", Policies(timeouts=Timeouts(request_s=6.0)))
    play, connection = stage.relaying()
    stage.pass_time(5.0)
    connection.body()

    stage.pass_time(1.0)

    assert ["head 200", "body", "abort"] == play.client.said
    assert "timeouts.request has passed" == play.exchange.detail


def test_an_answer_that_comes_to_a_halt_is_cut_off_and_counts() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(idle_s=300.0), breaker=ONE_STRIKE))
    play, connection = stage.relaying()
    stage.pass_time(299.0)
    connection.body()
    stage.pass_time(299.0)
    assert not play.client.is_over

    stage.pass_time(1.0)

    assert ["head 200", "body", "abort"] == play.client.said
    assert Failure.UPSTREAM_BROKE_OFF is play.exchange.failure
    assert 1 == stage.member("a").breaker.failures_in_a_row
    stage.assert_all_is_settled()


def test_without_limits_nothing_ever_expires() -> None:
    limits = Timeouts(connect_s=None, response_s=None, idle_s=None, request_s=None)
    stage = Stage("a", Policies(timeouts=limits))
    play = stage.begin()
    stage.pass_time(1e9)
    connection = stage.pools["a"].connect()
    stage.pass_time(1e9)
    connection.head()
    stage.pass_time(1e9)

    connection.end()

    assert ["head 200", "end"] == play.client.said


def expecting(stage: Stage) -> tuple[Play, FakeConnection]:
    """Bring a request whose client waits for a 100 to the point where its head is sent."""
    request = stage.request(b"PUT", 9)
    request.expects_continue = True
    client = FakeClient()
    exchange = stage.engine.exchange(request, client)
    exchange.begin(stage.clock())
    return Play(exchange=exchange, client=client), stage.pools["a"].connect()


EXPECTING = Policies(
    timeouts=Timeouts(response_s=15.0), client_body_timeout_s=60.0, breaker=ONE_STRIKE
)


@pytest.mark.parametrize("request_s", [None, 10.0], ids=["timeouts.response", "timeouts.request"])
def test_nobody_is_blamed_where_a_client_waits_for_its_100_and_the_instance_says_nothing(
    request_s: float | None,
) -> None:
    """An instance should say 100 or answer (RFC 9110 §10.1.1), but any client can wait like this.

    The next instance would be asked in vain as well, and at the cost of the Budget.
    """
    timeouts = Timeouts(response_s=15.0, request_s=request_s)
    stage = Stage("ab", Policies(timeouts=timeouts, breaker=ONE_STRIKE))
    play, connection = expecting(stage)

    stage.pass_time(15.0)

    assert (["head 504", "body", "end"], b"continue_timeout") == (
        play.client.said,
        play.client.reason,
    )
    assert "closed" == connection.ending
    assert BreakerState.CLOSED is stage.breaker_state("a")
    assert [] == stage.pools["b"].asked_fresh
    stage.assert_all_is_settled()


@pytest.mark.parametrize("turn", ["100", "body"])
def test_a_client_that_need_not_wait_any_longer_is_waited_for(turn: str) -> None:
    stage = Stage("a", EXPECTING)
    play, connection = expecting(stage)
    stage.pass_time(14.0)
    if turn == "100":
        connection.interim(100)
    else:
        stage.send(play, b"some")
    stage.pass_time(59.0)
    assert play.client.head is None

    stage.pass_time(1.0)

    assert b"request_timeout" == play.client.reason
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_other_interim_answers_give_an_instance_no_more_time() -> None:
    stage = Stage("a", EXPECTING)
    play, connection = expecting(stage)
    stage.pass_time(14.0)
    connection.interim(103)

    stage.pass_time(1.0)

    assert b"continue_timeout" == play.client.reason


def test_an_instance_that_says_that_it_works_on_is_waited_for_anew() -> None:
    stage = Stage("a")
    play, connection = stage.sending()

    for _ in range(3):
        stage.pass_time(14.0)
        connection.interim(102)
    stage.pass_time(14.0)
    assert play.client.head is None
    stage.pass_time(1.0)

    assert b"head_timeout" == play.client.reason
    assert ["interim 102"] * 3 == play.client.said[:3]


def test_it_is_not_waited_for_longer_than_for_the_whole_request() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(request_s=20.0)))
    play, connection = stage.sending()

    stage.pass_time(14.0)
    connection.interim(102)
    stage.pass_time(6.0)

    assert b"request_deadline" == play.client.reason


def test_a_client_that_takes_no_more_is_sent_no_interim_answers_but_100() -> None:
    stage = Stage("a")
    play, connection = stage.sending()

    play.exchange.client_paused()
    connection.interim(102)
    connection.interim(100)

    assert ["interim 100"] == play.client.said


# --- The client's turn: nobody else is blamed for what it does not do ----------------------------


def test_an_upload_that_comes_to_a_halt_is_the_clients_fault() -> None:
    policies = Policies(
        timeouts=Timeouts(min_rate_bytes=None), client_body_timeout_s=60.0, breaker=ONE_STRIKE
    )
    stage = Stage("abc", policies)
    play, connection = stage.sending(b"PUT", 9)
    stage.pass_time(59.0)
    stage.send(play, b"some")
    stage.pass_time(59.0)
    assert [] == play.client.said

    stage.pass_time(1.0)

    assert ["head 408", "body", "end"] == play.client.said
    assert b"request_timeout" == play.client.reason
    assert "closed" == connection.ending
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def least(least_bytes: int | None = 100) -> Policies:
    """Ask for so much of a body in each minute."""
    timeouts = Timeouts(min_rate_bytes=least_bytes)
    return Policies(timeouts=timeouts, client_body_timeout_s=60.0, breaker=ONE_STRIKE)


def trickle(stage: Stage, play: Play, size_bytes: int, *, times: int) -> None:
    """Let a piece of the body come every 8 s."""
    for _ in range(times):
        stage.pass_time(8.0)
        stage.send(play, b"x" * size_bytes)


def test_an_upload_that_is_too_slow_is_ended_though_bytes_come_all_the_time() -> None:
    stage = Stage("a", least())
    play, connection = stage.sending(b"PUT", 5000)
    trickle(stage, play, 1, times=7)
    assert [] == play.client.said

    stage.pass_time(4.0)

    assert b"request_timeout" == play.client.reason
    assert "slower than min_rate" in play.exchange.detail
    assert "closed" == connection.ending
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


@pytest.mark.parametrize(("least_bytes", "size_bytes"), [(100, 20), (None, 1)])
def test_an_upload_that_is_fast_enough_may_take_hours(
    least_bytes: int | None, size_bytes: int
) -> None:
    stage = Stage("a", least(least_bytes))
    play, connection = stage.sending(b"PUT", None)

    trickle(stage, play, size_bytes, times=1000)
    assert [] == play.client.said
    stage.send_end(play)
    connection.answer()

    assert "head 200" == play.client.said[0]


def test_an_upload_that_becomes_slow_is_ended_at_the_end_of_that_minute() -> None:
    stage = Stage("a", least())
    play, _ = stage.sending(b"PUT", None)
    stage.send(play, b"x" * 10_000)
    trickle(stage, play, 1, times=15)
    assert [] == play.client.said

    trickle(stage, play, 1, times=1)

    assert b"request_timeout" == play.client.reason


def test_the_pace_does_not_count_while_it_is_the_instance_that_takes_no_more() -> None:
    stage = Stage("a", least())
    play, connection = stage.sending(b"PUT", 5000)
    stage.pass_time(50.0)
    stage.send(play, b"x")
    connection.pauses()
    stage.pass_time(10.0)
    assert [] == play.client.said

    connection.resumes()
    stage.pass_time(59.0)
    assert [] == play.client.said
    stage.pass_time(1.0)
    assert b"request_timeout" == play.client.reason


def test_when_the_answer_has_begun_the_pace_of_the_body_is_nobodys_business() -> None:
    """Both talk then, each as fast as it likes."""
    stage = Stage("a", least())
    play, connection = stage.sending(b"PUT", None)
    connection.head()

    trickle(stage, play, 1, times=20)

    assert play.exchange.failure is None


def test_an_upload_is_idle_no_longer_than_the_routes_idle_timeout() -> None:
    policies = Policies(timeouts=Timeouts(idle_s=5.0), client_body_timeout_s=60.0)
    stage = Stage("abc", policies)
    play, _ = stage.sending(b"PUT", 9)

    stage.pass_time(5.0)

    assert b"request_timeout" == play.client.reason


def test_an_instance_that_reads_no_further_is_to_blame() -> None:
    policies = Policies(timeouts=Timeouts(idle_s=60.0), breaker=ONE_STRIKE)
    stage = Stage("a", policies)
    play, connection = stage.sending(b"PUT", 9)
    connection.pauses()

    stage.pass_time(60.0)

    assert ["head 504", "body", "end"] == play.client.said
    assert b"send_timeout" == play.client.reason
    assert BreakerState.OPEN is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_the_request_deadline_inside_an_upload_blames_no_instance() -> None:
    """A client could open every Breaker with slow uploads, if it did."""
    policies = Policies(timeouts=Timeouts(request_s=10.0), breaker=ONE_STRIKE)
    stage = Stage("a", policies)
    play, _ = stage.sending(b"PUT", 9)
    stage.pass_time(9.0)
    stage.send(play, b"some")

    stage.pass_time(1.0)

    assert b"request_timeout" == play.client.reason
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


@pytest.mark.parametrize("timeouts", [Timeouts(idle_s=60.0), Timeouts(idle_s=90.0, request_s=60.0)])
def test_a_client_that_reads_no_further_blames_no_instance(timeouts: Timeouts) -> None:
    stage = Stage("a", Policies(timeouts=timeouts, breaker=ONE_STRIKE))
    play, connection = stage.relaying()
    connection.body()
    play.exchange.client_paused()

    stage.pass_time(60.0)

    assert ["head 200", "body", "abort"] == play.client.said
    assert Failure.CLIENT_GONE is play.exchange.failure
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def choked(policies: Policies, unsent_bytes: int | None) -> tuple[Stage, Play]:
    """Bring a client to the point where it takes no more of its answer, for now."""
    stage = Stage("a", policies)
    stage.pass_time(0.0)
    play, connection = stage.relaying()
    play.client.unsent = unsent_bytes
    connection.body(b"x" * 10_000)
    play.exchange.client_paused()
    return stage, play


@pytest.mark.parametrize("taken_bytes", [0, 199])
def test_a_client_that_takes_its_answer_too_slowly_is_cut(taken_bytes: int) -> None:
    stage, play = choked(least(), 10_000)
    stage.pass_time(119.0)
    play.client.unsent = 10_000 - taken_bytes
    assert not play.client.is_over

    stage.pass_time(1.0)

    assert ["head 200", "body", "abort"] == play.client.said
    assert Failure.CLIENT_GONE is play.exchange.failure
    assert "slower than min_rate" in play.exchange.detail
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_a_client_that_takes_its_answer_slowly_but_steadily_has_all_the_time() -> None:
    """Before it has room for more of it, hours may pass."""
    stage, play = choked(least(), 10_000)
    for minute in range(48):
        play.client.unsent = 10_000 - 200 * minute
        stage.pass_time(60.0)

    assert not play.client.is_over
    play.exchange.client_resumed(stage.clock())
    stage.pass_time(299.0)
    assert not play.client.is_over


@pytest.mark.parametrize(("least_bytes", "unsent_bytes"), [(None, 10_000), (100, None)])
def test_where_no_rate_is_asked_for_or_nobody_can_tell_it_the_idle_timeout_holds(
    least_bytes: int | None, unsent_bytes: int | None
) -> None:
    stage, play = choked(least(least_bytes), unsent_bytes)
    stage.pass_time(299.0)
    assert not play.client.is_over

    stage.pass_time(1.0)

    assert Failure.CLIENT_GONE is play.exchange.failure
    assert "reads no further" in play.exchange.detail


def test_a_client_that_took_no_more_before_its_answer_began_is_watched_too() -> None:
    stage = Stage("a", least())
    play, connection = stage.sending()
    play.client.unsent = 500
    play.exchange.client_paused()
    connection.head()

    stage.pass_time(120.0)

    assert "slower than min_rate" in play.exchange.detail


def test_an_upload_that_halts_behind_an_early_head_blames_no_instance() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(idle_s=60.0), breaker=ONE_STRIKE))
    play, _ = stage.relaying(b"POST", None)

    stage.pass_time(60.0)

    assert ["head 200", "abort"] == play.client.said
    assert Failure.REQUEST_TIMEOUT is play.exchange.failure
    assert BreakerState.CLOSED is stage.breaker_state("a")


def test_an_instance_that_neither_reads_nor_answers_behind_its_head_is_to_blame() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(idle_s=60.0), breaker=ONE_STRIKE))
    play, connection = stage.relaying(b"POST", None)
    connection.pauses()

    stage.pass_time(60.0)

    assert Failure.UPSTREAM_BROKE_OFF is play.exchange.failure
    assert 1 == stage.member("a").breaker.failures_in_a_row


# --- What puts a deadline off --------------------------------------------------------------------


def test_a_body_that_moves_either_way_is_not_idle() -> None:
    """An instance may answer at once and read for long: idle is when neither side says anything."""
    stage = Stage("a", Policies(timeouts=Timeouts(idle_s=60.0)))
    play, connection = stage.relaying(b"POST", None)
    for _ in range(5):
        stage.pass_time(59.0)
        stage.send(play, b"more")
    stage.pass_time(59.0)
    stage.send_end(play)
    stage.pass_time(59.0)

    connection.end()

    assert ["head 200", "end"] == play.client.said


def test_a_client_that_reads_again_gives_the_instance_its_whole_time() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(idle_s=60.0)))
    play, _ = stage.relaying()
    play.exchange.client_paused()
    stage.pass_time(59.0)

    play.exchange.client_resumed(stage.clock())
    stage.pass_time(59.0)

    assert not play.client.is_over


def test_an_instance_that_reads_again_gives_the_client_its_whole_time() -> None:
    stage = Stage("a", Policies(timeouts=Timeouts(idle_s=60.0)))
    play, connection = stage.sending(b"PUT", None)
    connection.pauses()
    stage.pass_time(59.0)

    connection.resumes()
    stage.pass_time(59.0)

    assert not play.client.is_over


def test_the_next_attempt_gets_its_own_time() -> None:
    stage = Stage("ab", Policies(timeouts=Timeouts(connect_s=2.0, response_s=15.0)))
    play = stage.begin()
    stage.pass_time(2.0)
    stage.pass_time(1.9)
    connection = stage.pools["b"].connect()
    stage.pass_time(14.9)

    connection.answer()

    assert ["head 200", "body", "end"] == play.client.said
    assert [Failure.CONNECT_TIMEOUT] == [one.failure for one in play.exchange.attempts.failed]
