"""Whom an Exchange tries, and that each Permit is reported exactly once."""

from __future__ import annotations

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, Request
from gateway.core.model import Status
from gateway.core.policy import BreakerPolicy
from gateway.proxy.attempts import Attempts
from tests.fakes.engine import Policies, Stage, instance

REQUEST = Request(b"GET", b"/", b"", b"")
ONE_STRIKE = Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0))


def attempts_on(stage: Stage) -> Attempts:
    return Attempts(stage.fleet, lambda: 0.0, stage.observer, stage.request())


def take(stage: Stage, attempts: Attempts, at_most: int = 9) -> str | None:
    member = attempts.take_next(stage.clock(), at_most)
    return None if member is None else member.instance.key


def in_flight(stage: Stage) -> list[int]:
    return [member.in_flight for member in stage.fleet.members.values()]


def test_each_candidate_is_taken_once_and_the_one_before_is_let_go() -> None:
    stage = Stage()
    attempts = attempts_on(stage)

    taken = [take(stage, attempts) for _ in range(4)]

    assert ["a", "b", "c", None] == taken
    assert [0, 0, 1] == in_flight(stage)
    attempts.end()
    attempts.end()  # was let go already
    assert [0, 0, 0] == in_flight(stage)


def test_no_more_are_taken_than_may_be() -> None:
    stage = Stage()
    attempts = attempts_on(stage)

    assert ["a", "b", None] == [take(stage, attempts, at_most=2) for _ in range(3)]


def test_one_that_is_left_alone_is_not_taken() -> None:
    stage = Stage("abc", ONE_STRIKE)
    stage.open_breaker("a")

    assert "b" == take(stage, attempts_on(stage))


def test_blame_counts_once_where_the_failure_counts() -> None:
    stage = Stage("a", ONE_STRIKE)
    attempts = attempts_on(stage)
    take(stage, attempts)

    attempts.blame(Failure.CONNECT_FAILED, "refused", REQUEST, stage.clock())
    attempts.blame(Failure.HEAD_TIMEOUT, "late", REQUEST, stage.clock())
    attempts.end()

    assert ["user-service a open"] == stage.observer.breaker_changes
    assert "connect_failed" == stage.member("a").breaker.last_failure
    assert ["refused", "late"] == [one.detail for one in attempts.failed]


def test_blame_for_what_is_nobodys_fault_gives_the_permit_back() -> None:
    stage = Stage("a", ONE_STRIKE)
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    attempts = attempts_on(stage)
    take(stage, attempts)
    assert None is take(stage, attempts_on(stage))

    attempts.blame(Failure.STALE_CONNECTION, "closed", REQUEST, stage.clock())

    assert [] == stage.observer.breaker_changes
    stage.clock.advance(1.0)
    assert "a" == take(stage, attempts_on(stage))


def test_praise_counts_once_and_closes_a_half_open_breaker() -> None:
    stage = Stage("a", ONE_STRIKE)
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    attempts = attempts_on(stage)
    take(stage, attempts)

    attempts.praise(stage.clock())
    attempts.praise(stage.clock())

    assert ["user-service a closed"] == stage.observer.breaker_changes
    assert BreakerState.CLOSED is stage.breaker_state("a")


def test_praise_after_blame_is_not_heard() -> None:
    stage = Stage("a", ONE_STRIKE)
    attempts = attempts_on(stage)
    take(stage, attempts)
    attempts.blame(Failure.RETRIABLE_STATUS, "503", REQUEST, stage.clock())

    attempts.praise(stage.clock())

    assert BreakerState.OPEN is stage.breaker_state("a")


def test_only_a_trial_is_praised_early() -> None:
    stage = Stage("a", ONE_STRIKE)
    attempts = attempts_on(stage)
    take(stage, attempts)

    attempts.answered(AnswerHead(200, b"OK", b""), REQUEST, stage.clock())
    attempts.blame(Failure.HEAD_TIMEOUT, "gone", REQUEST, stage.clock())

    assert BreakerState.OPEN is stage.breaker_state("a")


def test_the_end_gives_an_unreported_permit_back() -> None:
    stage = Stage("a", ONE_STRIKE)
    stage.open_breaker("a")
    stage.clock.advance(10.0)
    attempts = attempts_on(stage)
    take(stage, attempts)

    attempts.end()

    stage.clock.advance(1.0)
    assert "a" == take(stage, attempts_on(stage))
    assert [] == stage.observer.breaker_changes


def test_the_same_one_again_is_no_failed_attempt() -> None:
    stage = Stage("ab")
    attempts = attempts_on(stage)
    take(stage, attempts)
    attempts.blame(Failure.STALE_CONNECTION, "closed", REQUEST, stage.clock())
    attempts.end()

    member = attempts.take_same_again(stage.clock())

    assert stage.member("a") is member
    assert [] == attempts.failed
    assert [1, 0] == in_flight(stage)
    assert "<Attempts 1 tried, 0 failed>" == repr(attempts)
    attempts.end()
    assert [0, 0] == in_flight(stage)


def test_the_same_one_again_is_nobody_when_it_is_left_alone_meanwhile() -> None:
    stage = Stage("ab", ONE_STRIKE)
    attempts = attempts_on(stage)
    take(stage, attempts)
    attempts.blame(Failure.STALE_CONNECTION, "closed", REQUEST, stage.clock())
    attempts.end()
    stage.open_breaker("a")

    assert None is attempts.take_same_again(stage.clock())
    assert [Failure.STALE_CONNECTION] == [one.failure for one in attempts.failed]
    assert [0, 0] == in_flight(stage)


# --- Why nobody is left --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instances", "failure", "detail"),
    [
        (None, Failure.CATALOG_COLD, "the registry has told nothing of 'user-service' yet"),
        ("", Failure.NO_INSTANCES, "service 'user-service' has no instance registered"),
        ("a", Failure.BREAKERS_OPEN, "every Breaker of service 'user-service' is open"),
    ],
)
def test_nobody_could_be_tried(instances: str | None, failure: Failure, detail: str) -> None:
    stage = Stage(instances, ONE_STRIKE)
    for key in instances or "":
        stage.open_breaker(key)

    assert (failure, detail) == attempts_on(stage).verdict(stage.clock())


@pytest.mark.parametrize(
    ("instances", "failures", "verdict"),
    [
        ("a", [Failure.CONNECT_FAILED], Failure.CONNECT_FAILED),
        ("ab", [Failure.CONNECT_FAILED, Failure.CONNECT_TIMEOUT], Failure.ALL_UNREACHABLE),
        ("ab", [Failure.CONNECT_FAILED, Failure.TLS_FAILED], Failure.ALL_UNREACHABLE),
        ("ab", [Failure.CONNECT_FAILED, Failure.HEAD_TIMEOUT], Failure.HEAD_TIMEOUT),
        ("ab", [Failure.HEAD_TIMEOUT, Failure.CONNECT_FAILED], Failure.CONNECT_FAILED),
        ("abc", [Failure.CONNECT_FAILED, Failure.CONNECT_FAILED], Failure.CONNECT_FAILED),
    ],
)
def test_everybody_failed(instances: str, failures: list[Failure], verdict: Failure) -> None:
    stage = Stage(instances)
    attempts = attempts_on(stage)

    for failure in failures:
        take(stage, attempts)
        attempts.blame(failure, "so it was", REQUEST, stage.clock())

    found, detail = attempts.verdict(stage.clock())
    assert verdict is found
    assert detail.endswith("so it was")


def test_nobody_can_be_reached_when_the_rest_is_left_alone() -> None:
    stage = Stage("abc")
    stage.open_breaker("b")
    stage.open_breaker("c")
    attempts = attempts_on(stage)
    take(stage, attempts)
    attempts.blame(Failure.CONNECT_FAILED, "refused", REQUEST, stage.clock())

    found = attempts.verdict(stage.clock())

    assert (Failure.ALL_UNREACHABLE, "none of 3 instances, the last: refused") == found


def test_somebody_who_gets_no_traffic_might_not_have_been_reached_either() -> None:
    stage = Stage(None)
    stage.publish([instance("a"), instance("b", status=Status.CRITICAL)])
    attempts = attempts_on(stage)
    take(stage, attempts)
    attempts.blame(Failure.CONNECT_FAILED, "refused", REQUEST, stage.clock())

    assert Failure.ALL_UNREACHABLE is attempts.verdict(stage.clock())[0]
