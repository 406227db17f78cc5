"""What follows a failed attempt: budget, backoff, rest, rounds, and how much time is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, lines_of
from gateway.core.policy import BreakerPolicy, RetryPolicy, Timeouts
from gateway.proxy.phase import Phase
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeClient

PATIENT = BreakerPolicy(consecutive_failures=1000, min_requests=1000)
NO_BUDGET = RetryPolicy(budget=0.0, budget_min=0.0)


def stage_with(retry: RetryPolicy, instances: str = "abc", **policies: Any) -> Stage:
    return Stage(instances, replace(Policies(retry=retry, breaker=PATIENT), **policies))


def ask(
    stage: Stage, *fields: tuple[bytes, bytes], method: bytes = b"GET", is_trusted: bool = False
) -> Play:
    """Let a client send a request with these fields."""
    client = FakeClient()
    request = stage.request(method)
    request.lines += lines_of(list(fields))
    request.crossing = request.lines
    request.peer.is_trusted = is_trusted
    exchange = stage.engine.exchange(request, client)
    exchange.begin(stage.clock())
    return Play(exchange=exchange, client=client)


def waits(stage: Stage) -> list[str]:
    return [key for key, pool in stage.pools.items() if pool.waiting]


# --- The Budget ----------------------------------------------------------------------------------


def test_without_budget_the_failure_of_the_first_attempt_is_the_answer() -> None:
    stage = stage_with(NO_BUDGET)
    play, connection = stage.sending()

    connection.fail(Failure.DISCONNECTED_EARLY)

    assert play.client.reason == b"disconnected_early"
    assert "budget" in play.exchange.detail
    assert stage.engine.loads.services["user-service"].budget.refused == 1
    stage.assert_all_is_settled()


def test_without_budget_a_retriable_answer_is_passed_on_as_it_is() -> None:
    stage = stage_with(NO_BUDGET)
    play, connection = stage.sending()

    connection.answer(503)

    assert play.client.said == ["head 503", "body", "end"]
    assert play.client.reason is None


def test_a_failover_of_which_nothing_was_sent_costs_nothing() -> None:
    stage = stage_with(NO_BUDGET)
    stage.begin()

    stage.pools["a"].refuse()

    assert waits(stage) == ["b"]


def test_a_connection_that_went_stale_costs_nothing_either() -> None:
    stage = stage_with(NO_BUDGET)
    connection = stage.pools["a"].warm_up()
    stage.begin()

    connection.fail(Failure.STALE_CONNECTION)

    assert waits(stage) == ["a"]


def test_routes_of_one_service_share_its_budget_and_a_reload_keeps_it() -> None:
    stage = stage_with(RetryPolicy(budget=0.0, budget_min=0.1))
    _, connection = stage.sending()
    connection.fail()
    budget = stage.engine.loads.services["user-service"].budget

    stage.route(stage.api(), stage.api(b"/other"))
    play = stage.begin(path=b"/other")
    stage.pools["a"].connect().fail()

    assert budget is stage.engine.loads.services["user-service"].budget
    assert (budget.spent, budget.answered) == (1, 0)
    assert play.client.reason == b"disconnected_early"


def test_a_service_that_is_gone_takes_its_budget_with_it() -> None:
    stage = stage_with(RetryPolicy())
    budget = stage.engine.loads.services["user-service"].budget
    assert budget in stage.deadlines.swept

    stage.engine.loads.use({}, [])

    assert budget not in stage.deadlines.swept
    assert stage.engine.loads.services == {}


# --- Backoff -------------------------------------------------------------------------------------


def waiting_stage() -> Stage:
    stage = stage_with(RetryPolicy(backoff_s=0.1, max_backoff_s=1.0))
    stage.engine.random = lambda: 0.5
    return stage


def test_the_first_failover_is_at_once_and_the_second_one_waits() -> None:
    stage = waiting_stage()
    play = stage.begin()
    (first,) = waits(stage)
    stage.pools[first].refuse()
    (second,) = waits(stage)
    stage.pools[second].refuse()

    assert waits(stage) == []
    stage.pass_time(0.04)
    assert waits(stage) == []
    stage.pass_time(0.01)
    (third,) = waits(stage)

    stage.pools[third].connect().answer()
    assert play.client.said == ["head 200", "body", "end"]
    stage.assert_all_is_settled()


def backing_off() -> tuple[Stage, Play]:
    stage = waiting_stage()
    play = stage.begin()
    for _ in range(2):
        stage.pools[waits(stage)[0]].refuse()
    assert play.exchange.phase is Phase.BACKING_OFF
    return stage, play


def test_a_client_that_leaves_meanwhile_is_not_sent_for() -> None:
    stage, play = backing_off()

    play.exchange.client_gone(stage.clock())
    stage.pass_time(1.0)

    assert waits(stage) == []
    stage.assert_all_is_settled()


def test_the_time_for_all_attempts_may_end_meanwhile_and_nobody_is_blamed_for_it() -> None:
    stage = stage_with(
        RetryPolicy(backoff_s=10.0, max_backoff_s=10.0), timeouts=Timeouts(request_s=1.0)
    )
    stage.engine.random = lambda: 0.5
    play = stage.begin()
    for _ in range(2):
        stage.pools[waits(stage)[0]].refuse()

    stage.pass_time(1.0)

    assert play.client.reason == b"request_deadline"
    assert len(play.exchange.attempts.failed) == 2
    stage.assert_all_is_settled()


# --- Conditions, rounds, keys --------------------------------------------------------------------


def test_after_what_is_not_named_nobody_else_is_tried() -> None:
    stage = stage_with(RetryPolicy(on=frozenset({"connect"})))
    play, connection = stage.sending()

    connection.answer(503)

    assert play.client.said[0] == "head 503"


def test_another_round_begins_only_where_that_is_wanted() -> None:
    for repeat, tries in ((False, 2), (True, 4)):
        stage = stage_with(RetryPolicy(attempts=4, repeat=repeat), "ab")
        play = stage.begin()
        count = 0
        while waiting := waits(stage):
            count += 1
            stage.pools[waiting[0]].connect().answer(503)
            stage.pass_time(1.0)

        assert count == tries
        assert play.client.said[0] == "head 503"
        stage.assert_all_is_settled()


def test_a_round_of_one_goes_to_the_same_one_again() -> None:
    stage = stage_with(RetryPolicy(attempts=2, repeat=True), "a")
    play, connection = stage.sending()

    connection.answer(503)
    stage.pools["a"].connect().answer()

    assert play.client.said[0] == "head 200"


@pytest.mark.parametrize(
    ("honours", "fields", "goes_on"),
    [
        (True, ((b"Idempotency-Key", b'"8e03978e"'),), True),
        (True, ((b"idempotency-key", b""),), False),
        (True, (), False),
        (False, ((b"Idempotency-Key", b'"8e03978e"'),), False),
    ],
)
def test_a_post_with_a_key_is_sent_again_where_the_route_says_so(
    fields: tuple[tuple[bytes, bytes], ...], *, honours: bool, goes_on: bool
) -> None:
    stage = stage_with(RetryPolicy(idempotency_key=honours))
    ask(stage, *fields, method=b"POST")

    stage.pools["a"].connect().fail()

    assert bool(waits(stage)) == goes_on


# --- Retry-After ---------------------------------------------------------------------------------


def answer_503(stage: Stage, retry_after: bytes) -> Play:
    play, connection = stage.sending()
    head = AnswerHead(503, b"", lines_of([(b"Retry-After", retry_after)]))
    assert connection.exchange is not None
    connection.exchange.upstream_head(head, stage.clock())
    return play


@pytest.mark.parametrize(
    ("said", "longest_s", "rests_s"),
    [(b"3", 10.0, 3.0), (b"3600", 10.0, 10.0), (b"3", None, 0.0), (b"x", 10.0, 0.0)],
)
def test_an_instance_that_asks_for_it_is_left_alone_within_reason(
    said: bytes, longest_s: float | None, rests_s: float
) -> None:
    stage = stage_with(RetryPolicy(max_retry_after_s=longest_s))

    answer_503(stage, said)

    breaker = stage.member("a").breaker
    assert breaker.retry_at_s(stage.clock()) - stage.clock() == pytest.approx(rests_s)
    assert waits(stage) == ["b"]


def test_the_only_instance_is_asked_on_whatever_it_asks_for() -> None:
    stage = stage_with(RetryPolicy(), "a")

    play = answer_503(stage, b"5")

    assert play.client.said[0] == "head 503"
    assert stage.member("a").breaker.would_admit(stage.clock())


# --- 429 -----------------------------------------------------------------------------------------

LISTS_429 = RetryPolicy(statuses=frozenset({429, 503}))
ONE_STRIKE = BreakerPolicy(consecutive_failures=1)


def answer_429(stage: Stage, *fields: tuple[bytes, bytes]) -> Play:
    play, connection = stage.sending()
    assert connection.exchange is not None
    connection.exchange.upstream_head(AnswerHead(429, b"", lines_of([*fields])), stage.clock())
    return play


@pytest.mark.parametrize(
    ("said", "longest_s", "rests_s"),
    [(None, 10.0, 1.0), (b"3", 10.0, 3.0), (b"0", 10.0, 0.0), (None, 0.5, 0.5), (b"3", None, 0.0)],
)
def test_who_answers_429_rests_and_the_next_one_is_asked(
    said: bytes | None, longest_s: float | None, rests_s: float
) -> None:
    retry = replace(LISTS_429, max_retry_after_s=longest_s)
    stage = stage_with(retry, breaker=ONE_STRIKE)

    play = answer_429(stage, *([] if said is None else [(b"Retry-After", said)]))

    breaker = stage.member("a").breaker
    assert breaker.retry_at_s(stage.clock()) - stage.clock() == pytest.approx(rests_s)
    assert breaker.is_resting == bool(rests_s)
    assert waits(stage) == ["b"]
    assert [Failure.TOO_MANY_REQUESTS] == [one.failure for one in play.exchange.attempts.failed]


def test_however_often_an_instance_answers_429_it_has_not_failed() -> None:
    stage = stage_with(LISTS_429, "a", breaker=ONE_STRIKE)

    plays = [answer_429(stage) for _ in range(3)]

    assert [play.client.said[0] for play in plays] == ["head 429"] * 3
    assert [play.exchange.failure for play in plays] == [None] * 3
    assert stage.breaker_state("a") is BreakerState.CLOSED
    assert (stage.member("a").breaker.ended_count, len(stage.member("a").failures)) == (0, 0)


def test_a_429_to_one_client_does_not_take_the_instance_from_others() -> None:
    stage = stage_with(LISTS_429, "ab")
    for key in "ab":
        stage.member(key).witnesses.note(b"10.9.9.9", stage.clock())

    answer_429(stage)
    assert not any(stage.member(key).breaker.is_resting for key in "ab")
    stage.client_address = b"10.8.8.8"
    answer_429(stage)

    assert any(stage.member(key).breaker.is_resting for key in "ab")


def test_a_429_that_is_not_listed_is_the_answer() -> None:
    stage = stage_with(RetryPolicy())

    play = answer_429(stage, (b"Retry-After", b"3"))

    assert play.client.said[0] == "head 429"
    assert stage.member("a").breaker.would_admit(stage.clock())


# --- How much time is left -----------------------------------------------------------------------

NAME = b"x-request-timeout-ms"


def time_left(stage: Stage, key: str = "a") -> list[bytes]:
    """Tell what an instance was told."""
    lines = bytes(stage.pools[key].made[-1].sent).split(b"\r\n")
    return [line.partition(b": ")[2] for line in lines if line.lower().startswith(NAME)]


def timed_stage(request_s: float | None = 10.0, response_s: float | None = 15.0) -> Stage:
    timeouts = Timeouts(request_s=request_s, response_s=response_s)
    return stage_with(RetryPolicy(), timeouts=timeouts, deadline_header=NAME)


def test_each_attempt_is_told_how_much_is_left_of_the_time_for_all() -> None:
    stage = timed_stage()
    stage.begin()
    stage.clock.advance(1.5)
    stage.pools["a"].connect().fail()
    stage.clock.advance(2.0)
    stage.pools["b"].connect()

    assert time_left(stage) == [b"8500"]
    assert time_left(stage, "b") == [b"6500"]


@pytest.mark.parametrize(
    ("request_s", "response_s", "told"), [(10.0, 3.0, [b"3000"]), (None, None, [])]
)
def test_nobody_is_told_more_than_the_gateway_waits(
    request_s: float | None, response_s: float | None, told: list[bytes]
) -> None:
    stage = timed_stage(request_s, response_s)
    stage.sending()

    assert told == time_left(stage)


def test_what_a_trusted_proxy_says_holds_and_is_not_passed_on_twice() -> None:
    stage = timed_stage()
    play = ask(stage, (b"X-Request-Timeout-Ms", b"500"), is_trusted=True)
    stage.pools["a"].connect()

    assert time_left(stage) == [b"500"]
    stage.pass_time(0.9)
    assert play.client.reason == b"client_deadline"
    assert stage.member("a").breaker.failures_in_a_row == 0
    stage.assert_all_is_settled()


def test_what_anybody_else_says_is_dropped() -> None:
    stage = timed_stage()
    ask(stage, (b"X-Request-Timeout-Ms", b"1"))
    stage.pools["a"].connect()

    assert time_left(stage) == [b"10000"]


def test_a_trusted_proxy_cannot_give_more_time_than_there_is() -> None:
    stage = timed_stage()
    ask(stage, (b"X-Request-Timeout-Ms", b"60000"), is_trusted=True)
    stage.pools["a"].connect()

    assert time_left(stage) == [b"10000"]


def test_on_other_routes_the_field_is_one_like_any_other() -> None:
    stage = stage_with(RetryPolicy())
    ask(stage, (b"X-Request-Timeout-Ms", b"800"))
    stage.pools["a"].connect()

    assert time_left(stage) == [b"800"]


# --- One try -------------------------------------------------------------------------------------


def test_a_try_that_takes_too_long_is_given_up_for_another_one() -> None:
    stage = stage_with(RetryPolicy(per_try_s=0.5))
    play, _ = stage.sending()

    stage.pass_time(0.5)

    assert waits(stage) == ["b"]
    assert play.exchange.attempts.failed[0].detail == "retry.per_try has passed"


def test_connecting_is_part_of_a_try() -> None:
    stage = stage_with(RetryPolicy(per_try_s=0.5))
    play = stage.begin()

    stage.pass_time(0.5)

    assert [one.failure for one in play.exchange.attempts.failed] == [Failure.CONNECT_TIMEOUT]
    assert waits(stage) == ["b"]


# --- Slow answers --------------------------------------------------------------------------------


def test_answers_that_take_long_open_the_breaker_where_that_is_wanted() -> None:
    breaker = BreakerPolicy(slow_after_s=1.0, slow_ratio=0.5, min_requests=3)
    stage = stage_with(RetryPolicy(), "ab", breaker=breaker)
    for _ in range(3):
        _, connection = stage.sending()
        stage.clock.advance(1.5)
        connection.answer()

    assert not stage.member("a").breaker.would_admit(stage.clock())
    assert stage.member("a").breaker.last_failure == "slow_answers"
    assert stage.observer.breaker_changes == ["user-service a open"]


def test_a_trial_that_is_slow_has_not_succeeded() -> None:
    breaker = BreakerPolicy(slow_after_s=1.0, consecutive_failures=1, open_for_s=10.0)
    stage = stage_with(RetryPolicy(), "ab", breaker=breaker)
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    _, connection = stage.sending()
    assert stage.member("a").breaker.has_trial_out

    stage.clock.advance(1.5)
    connection.answer()

    assert stage.breaker_state("a") is BreakerState.OPEN
    stage.assert_all_is_settled()


def test_the_time_that_a_client_takes_for_its_body_is_not_the_instances() -> None:
    breaker = BreakerPolicy(slow_after_s=1.0, min_requests=1)
    stage = stage_with(RetryPolicy(), "ab", breaker=breaker)
    play, connection = stage.sending(b"POST", 5)
    stage.clock.advance(30.0)
    stage.send(play, b"hello")
    stage.send_end(play)
    connection.answer()

    assert stage.member("a").breaker.would_admit(stage.clock())
