"""What the Breakers hear of an Exchange: one report for each Permit, a trial at the head."""

from __future__ import annotations

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy
from tests.fakes.engine import Policies, Stage


def test_a_whole_answer_forgives_the_failures_before_it() -> None:
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=2)))

    for status in (503, 200, 503, 200):
        stage.sending()[1].answer(status)

    assert BreakerState.CLOSED is stage.breaker_state("a")
    assert [] == stage.observer.breaker_changes


def test_a_trial_is_praised_at_the_head_and_not_again() -> None:
    """It must not wait for the end of an answer that may be endless."""
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0)))
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    _, connection = stage.sending()
    assert BreakerState.HALF_OPEN is stage.breaker_state("a")

    connection.head()

    assert BreakerState.CLOSED is stage.breaker_state("a")
    assert ["user-service a closed"] == stage.observer.breaker_changes
    connection.end()
    stage.assert_all_is_settled()


def test_a_trial_that_breaks_off_behind_its_head_was_reported_already() -> None:
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0)))
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    play, connection = stage.relaying()

    connection.fail()

    assert BreakerState.CLOSED is stage.breaker_state("a")
    assert ["head 200", "abort"] == play.client.said


def test_a_trial_whose_client_leaves_is_given_back() -> None:
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0)))
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    play, _ = stage.sending()

    play.exchange.client_gone(stage.clock())

    assert BreakerState.HALF_OPEN is stage.breaker_state("a")
    assert not stage.member("a").breaker.has_trial_out
    stage.assert_all_is_settled()


def test_a_trial_on_a_stale_connection_is_still_the_trial_on_a_fresh_one() -> None:
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0)))
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    stale = stage.pools["a"].warm_up()
    stage.begin()

    stale.fail(Failure.STALE_CONNECTION)
    stage.pools["a"].connect().answer()

    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()
