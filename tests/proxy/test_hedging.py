"""A second instance is asked when the first takes long; the first good answer is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.policy import BreakerPolicy, Hedge, RetryPolicy
from gateway.proxy.phase import Phase
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeConnection

AFTER = RetryPolicy(hedge=Hedge(after_s=0.1))
PATIENT = BreakerPolicy(consecutive_failures=1000, min_requests=1000)


def hedged(
    retry: RetryPolicy = AFTER, instances: str = "abc"
) -> tuple[Stage, Play, FakeConnection]:
    """Bring a request to the point where a second instance is asked, but not connected yet."""
    stage = Stage(instances, Policies(retry=retry, breaker=PATIENT))
    play, first = stage.sending()
    stage.pass_time(0.1)
    return stage, play, first


def both(retry: RetryPolicy = AFTER) -> tuple[Stage, Play, FakeConnection, FakeConnection]:
    """Bring a request to the point where both instances have it."""
    stage, play, first = hedged(retry)
    return stage, play, first, stage.pools["b"].connect()


def blamed(stage: Stage) -> list[str]:
    members = stage.fleet.members.items()
    return [key for key, one in members if one.breaker.failures_in_a_row]


def test_nobody_else_is_asked_before_its_time() -> None:
    stage = Stage("ab", Policies(retry=AFTER))
    stage.sending()

    stage.pass_time(0.09)

    assert stage.pools["b"].waiting == []


def test_the_second_gets_the_same_request_at_its_own_address() -> None:
    _, _, first, second = both()

    assert first.sent == second.sent


def test_an_instance_that_is_always_given_up_is_left_alone() -> None:
    """It may be frozen: nothing that it does is ever waited for."""
    breaker = BreakerPolicy(min_requests=3)
    stage = Stage("ab", Policies(retry=AFTER, breaker=breaker))
    states = []
    for _ in range(3):
        stage.sending()
        stage.pass_time(0.1)
        stage.pools["b"].connect().answer()
        states.append(stage.breaker_state("a"))

    assert states == [BreakerState.CLOSED, BreakerState.CLOSED, BreakerState.OPEN]
    assert stage.member("a").breaker.last_failure == "given_up"
    stage.assert_all_is_settled()


def test_the_first_may_still_be_first_and_the_second_is_dropped() -> None:
    stage, play, first, second = both()

    first.answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert (first.ending, second.ending) == ("reusable", "closed")
    assert blamed(stage) == []
    stage.assert_all_is_settled()


def test_the_second_may_be_first_and_the_first_is_dropped() -> None:
    stage, play, first, second = both()

    second.interim()
    second.answer(body=b"from b")

    assert play.client.said == ["head 200", "body", "end"]
    assert bytes(play.client.body) == b"from b"
    assert (first.ending, second.ending) == ("closed", "reusable")
    assert play.exchange.attempts.member.instance.key == "b"
    assert blamed(stage) == []
    stage.assert_all_is_settled()


def test_a_second_whose_answer_comes_in_one_piece_wins_too() -> None:
    stage, play, first, second = both()

    second.answer_whole(body=b"from b")

    assert bytes(play.client.body) == b"from b"
    assert play.client.is_over
    assert (first.ending, second.ending) == ("closed", "reusable")
    stage.assert_all_is_settled()


def test_each_of_both_is_known_by_its_own_time() -> None:
    stage, _, _, second = both()

    stage.clock.advance(0.02)
    second.answer()

    latencies = [stage.fleet.members[key].latency_s for key in "ab"]
    assert latencies == [pytest.approx(0.12), pytest.approx(0.02)]


def test_a_second_that_wins_and_breaks_off_is_what_the_client_sees() -> None:
    stage, play, _, second = both()

    second.head()
    second.fail()

    assert play.client.said == ["head 200", "abort"]
    assert blamed(stage) == ["b"]
    stage.assert_all_is_settled()


@pytest.mark.parametrize("failure", [Failure.DISCONNECTED_EARLY, Failure.BAD_RESPONSE])
def test_a_first_that_fails_leaves_it_to_the_second(failure: Failure) -> None:
    stage, play, first, second = both()

    first.fail(failure)
    assert play.exchange.phase is Phase.SENDING
    assert stage.pools["c"].waiting == []
    second.interim()
    second.answer()

    assert play.client.said == ["interim 103", "head 200", "body", "end"]
    assert blamed(stage) == ["a"]
    stage.assert_all_is_settled()


def test_a_first_with_a_bad_answer_leaves_it_to_the_second() -> None:
    stage, play, first, second = both()

    first.answer(503)
    second.answer()

    assert first.ending == "closed"
    assert play.client.said == ["head 200", "body", "end"]
    stage.assert_all_is_settled()


def test_a_second_that_takes_over_and_fails_too_goes_on_to_a_third() -> None:
    stage, play, first, second = both()

    first.fail()
    second.fail()
    stage.pass_time(1.0)
    stage.pools["c"].connect().answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert blamed(stage) == ["a", "b"]
    stage.assert_all_is_settled()


@pytest.mark.parametrize("is_answer", [True, False])
def test_a_second_that_fails_is_blamed_and_the_first_is_waited_for(*, is_answer: bool) -> None:
    stage, play, first, second = both()

    if is_answer:
        second.head(503)
    else:
        second.fail()
    first.answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert blamed(stage) == ["b"]
    stage.assert_all_is_settled()


def test_a_second_that_is_still_connecting_is_given_up_for_a_failover() -> None:
    stage, play, first = hedged()

    first.fail()
    assert stage.pools["b"].waiting == [play.exchange]
    stage.pools["b"].refuse()
    stage.pass_time(1.0)
    stage.pools["c"].connect().answer()

    assert play.client.said == ["head 200", "body", "end"]
    stage.assert_all_is_settled()


@pytest.mark.parametrize("is_answer", [True, False])
def test_a_second_that_is_still_connecting_may_be_the_failover(*, is_answer: bool) -> None:
    """Nothing was sent to it yet, so it counts as one that was not tried."""
    stage, play, first = hedged(instances="ab")

    if is_answer:
        first.answer(503)
    else:
        first.fail()
    stage.pools["b"].connect().answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert blamed(stage) == ["a"]
    stage.assert_all_is_settled()


def test_a_second_that_takes_over_has_a_time_of_its_own() -> None:
    """It begins when it has the request, not when it began to connect."""
    stage, play, first = hedged(replace(AFTER, hedge=Hedge(after_s=13.0)))
    stage.pass_time(12.9)
    stage.pass_time(1.5)
    second = stage.pools["b"].connect()

    stage.pass_time(0.6)
    assert first.ending == "closed"
    stage.pass_time(14.0)
    second.answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert blamed(stage) == ["a"]
    stage.assert_all_is_settled()


def test_a_first_that_goes_on_over_a_fresh_connection_has_one_hedge_at_a_time() -> None:
    """Else the one that is forgotten would answer the client's next request."""
    stage = Stage("abcd", Policies(retry=AFTER, breaker=PATIENT))
    play, first = stage.sending()
    stage.pass_time(0.05)
    first.fail(Failure.STALE_CONNECTION)
    again = stage.pools["a"].connect()

    for _ in range(4):
        stage.pass_time(0.05)
    again.answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert [key for key, pool in stage.pools.items() if pool.asked_fresh] == ["a", "b"]
    stage.assert_all_is_settled()


def test_a_second_that_cannot_be_reached_is_blamed() -> None:
    stage, play, first = hedged()

    stage.pools["b"].refuse()
    first.answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert blamed(stage) == ["b"]


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_client_that_leaves_leaves_neither_of_them(*, is_connected: bool) -> None:
    stage, play, first = hedged()
    if is_connected:
        stage.pools["b"].connect()

    play.exchange.client_gone(stage.clock())

    assert first.ending == "closed"
    assert blamed(stage) == []
    stage.assert_all_is_settled()


def test_a_timeout_of_the_first_leaves_it_to_the_second() -> None:
    stage, play, first, second = both()

    stage.pass_time(15.0)
    assert first.ending == "closed"
    second.answer()

    assert play.client.said == ["head 200", "body", "end"]
    assert blamed(stage) == ["a"]


def test_a_warm_connection_is_used_at_once() -> None:
    stage = Stage("ab", Policies(retry=AFTER))
    stage.sending()
    second = stage.pools["b"].warm_up()

    stage.pass_time(0.1)

    assert second.exchange is not None


# --- When there is none --------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "length"), [(b"POST", 0), (b"PUT", 5)])
def test_what_may_not_be_sent_twice_or_has_a_body_is_not_hedged(method: bytes, length: int) -> None:
    stage = Stage("ab", Policies(retry=AFTER))
    stage.sending(method, length)

    stage.pass_time(5.0)

    assert stage.pools["b"].waiting == []


@pytest.mark.parametrize(
    "retry",
    [replace(AFTER, budget=0.0, budget_min=0.0), replace(AFTER, attempts=1)],
    ids=["no budget", "no attempts"],
)
def test_it_is_an_attempt_like_any_other(retry: RetryPolicy) -> None:
    stage, _, _ = hedged(retry)

    assert stage.pools["b"].waiting == []


def test_it_counts_against_the_budget() -> None:
    stage, _, _, _ = both()

    assert stage.engine.loads.services["user-service"].budget.spent == 1


def test_with_nobody_else_there_is_no_hedge() -> None:
    stage, _, first = hedged(instances="a")

    assert first.ending is None
    assert stage.engine.loads.services["user-service"].budget.spent == 0


def test_an_attempt_that_has_failed_over_has_a_hedge_of_its_own() -> None:
    stage = Stage("abc", Policies(retry=AFTER, breaker=PATIENT))
    _, first = stage.sending()
    stage.clock.advance(0.05)
    first.fail()
    stage.pools["b"].connect()

    stage.pass_time(0.06)
    assert stage.pools["c"].waiting == []
    stage.pass_time(0.05)

    assert len(stage.pools["c"].waiting) == 1


def test_a_quantile_is_that_of_the_service_once_enough_is_known() -> None:
    stage = Stage("ab", Policies(retry=RetryPolicy(hedge=Hedge(quantile=0.9))))
    for number in range(60):
        _, connection = stage.sending()
        stage.clock.advance(0.2 if number % 20 == 0 else 0.01)
        connection.answer()
        assert stage.pools["b"].waiting == []
    stage.sending()

    stage.pass_time(0.009)
    assert stage.pools["b"].waiting == []
    stage.pass_time(0.005)

    assert len(stage.pools["b"].waiting) == 1


def test_hedges_do_not_make_the_service_look_faster_than_it_is() -> None:
    """A first attempt that is given up has taken so long at least.

    Were it forgotten, the slowest of what is left would be hedged next, and almost twice as many.
    """
    stage = Stage("ab", Policies(retry=RetryPolicy(hedge=Hedge(quantile=0.9))))
    for _ in range(60):
        _, connection = stage.sending()
        stage.clock.advance(0.01)
        connection.answer()
    stage.sending()
    stage.pass_time(0.5)
    stage.pools["b"].connect().answer()

    (load,) = stage.engine.loads.services.values()
    assert load.latencies.count == 62
    assert load.latencies.quantile_s(61 / 62) == pytest.approx(0.01, rel=0.2)
    assert load.latencies.quantile_s(1.0) == pytest.approx(0.5, rel=0.2)


def test_no_route_without_a_hedge_looks_at_the_clock() -> None:
    (target,) = Stage().engine.targets

    assert (target.hedging, target.stopwatch) == (None, None)
