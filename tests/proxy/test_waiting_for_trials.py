"""A request that has nowhere to go waits while another one tries whether an instance is back."""

from __future__ import annotations

import pytest

from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy
from gateway.proxy.phase import Phase
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeConnection

LATER_S = 0.03


def one_is_gone() -> Stage:
    """Make a service whose "a" is left alone because it took no connection; "b" serves."""
    stage = Stage("ab", Policies(breaker=BreakerPolicy(consecutive_failures=1)))
    stage.begin()
    stage.pools["a"].refuse()
    stage.pools["b"].connect().answer()
    stage.clock.advance(0.5)
    return stage


def other_is_gone_too(stage: Stage, method: bytes = b"GET") -> Play:
    """Let a request come, and let "b" be gone as well."""
    play = stage.begin(method)
    stage.pools["b"].refuse()
    return play


def on_trial() -> tuple[Stage, Play, FakeConnection]:
    """Bring it to the point where a request that "b" has failed is the trial of "a"."""
    stage = one_is_gone()
    play = other_is_gone_too(stage)
    return stage, play, stage.pools["a"].connect()


def test_what_the_last_instance_failed_tries_one_that_may_be_back() -> None:
    stage, play, connection = on_trial()

    connection.answer()

    assert play.client.said == ["head 200", "body", "end"]
    stage.assert_all_is_settled()


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_others_wait_for_its_outcome_and_go_where_it_went(method: bytes) -> None:
    stage, _, connection = on_trial()
    other = stage.begin(method)
    assert other.exchange.phase is Phase.BACKING_OFF

    connection.answer()
    stage.pass_time(LATER_S)
    stage.pools["a"].connect().answer()

    assert other.client.said == ["head 200", "body", "end"]
    assert other.exchange.attempts.failed == []
    stage.assert_all_is_settled()


def test_what_was_in_hand_at_the_other_one_waits_too() -> None:
    stage = one_is_gone()
    in_hand = stage.begin()
    connection = stage.pools["b"].connect()
    other_is_gone_too(stage)
    connection.fail()
    assert in_hand.exchange.phase is Phase.BACKING_OFF

    stage.pools["a"].connect().answer()
    stage.pass_time(LATER_S)
    stage.pools["a"].connect().answer()

    assert in_hand.client.said == ["head 200", "body", "end"]
    assert stage.engine.loads.services["user-service"].budget.spent == 1
    stage.assert_all_is_settled()


def test_when_it_does_not_answer_all_are_refused_and_nobody_waits_any_more() -> None:
    stage, play, connection = on_trial()
    other = stage.begin()

    connection.fail(Failure.HEAD_TIMEOUT)
    stage.pass_time(LATER_S)
    late = stage.begin()

    assert play.client.reason == b"head_timeout"
    assert [one.client.reason for one in (other, late)] == [b"breakers_open"] * 2
    stage.assert_all_is_settled()


def test_nobody_waits_for_longer_than_a_second() -> None:
    """The first that waits is the next trial, for the one that is out takes its time."""
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1)))
    stage.begin()
    stage.pools["a"].refuse()
    stage.clock.advance(1.1)
    play, connection = stage.sending()
    first, second = stage.begin(), stage.begin()

    for _ in range(52):
        assert not second.client.is_over
        stage.pass_time(0.0199)

    assert second.client.reason == b"breakers_open"
    assert stage.pools["a"].waiting == [first.exchange]
    assert not play.client.is_over
    connection.answer()
    stage.pools["a"].connect().answer()
    stage.assert_all_is_settled()


def test_the_next_trial_is_for_one_that_waits() -> None:
    stage, _, _ = on_trial()
    stage.begin()

    for _ in range(52):
        stage.pass_time(0.02)

    assert len(stage.pools["b"].waiting) == 1


def test_no_more_than_some_hundreds_wait() -> None:
    stage, _, connection = on_trial()

    plays = [stage.begin() for _ in range(300)]

    assert sum(not play.client.is_over for play in plays) == 256
    connection.fail(Failure.HEAD_TIMEOUT)
    stage.pass_time(LATER_S)
    assert all(play.client.is_over for play in plays)
    assert stage.engine.loads.services["user-service"].waiting == 0


def test_whoever_leaves_meanwhile_is_not_sent_on() -> None:
    stage, _, connection = on_trial()
    other = stage.begin()

    other.exchange.client_gone(stage.clock())
    connection.answer()
    stage.pass_time(LATER_S)

    assert other.exchange.failure is Failure.CLIENT_GONE
    assert stage.engine.loads.services["user-service"].waiting == 0
    stage.assert_all_is_settled()


def test_for_one_that_takes_long_nobody_waits() -> None:
    """What is known of a frozen one would be known too late."""
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1)))
    stage.sending()
    stage.pass_time(20)
    stage.pass_time(1.1)
    stage.begin()

    other = stage.begin()

    assert other.client.reason == b"breakers_open"
