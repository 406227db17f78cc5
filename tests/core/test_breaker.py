"""The rules of the Breaker, one by one."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.core.breaker import Breaker, BreakerState, Permit
from gateway.core.policy import BreakerPolicy

NOW_S = 1000.0
POLICY = BreakerPolicy(
    consecutive_failures=5,
    failure_ratio=0.5,
    min_requests=20,
    window_s=10.0,
    open_for_s=10.0,
    max_open_for_s=60.0,
)


def admitted(breaker: Breaker, now_s: float = NOW_S) -> Permit:
    permit = breaker.admit(now_s)
    assert permit is not None
    return permit


def fail(breaker: Breaker, now_s: float = NOW_S, *, chance: float = 0.99) -> bool:
    return breaker.failed(admitted(breaker, now_s), now_s, why="connect_failed", chance=chance)


def succeed(breaker: Breaker, now_s: float = NOW_S) -> bool:
    return breaker.succeeded(admitted(breaker, now_s), now_s)


def report(breaker: Breaker, results: str, at_s: list[float]) -> list[bool]:
    """Report failures (F) and successes (S); tell which of them changed the state."""
    return [
        fail(breaker, now_s) if result == "F" else succeed(breaker, now_s)
        for result, now_s in zip(results, at_s, strict=True)
    ]


def opened(*, chance: float = 0.99) -> tuple[Breaker, float]:
    """Make a Breaker that has just opened; the instant of its trial comes with it."""
    breaker = Breaker(POLICY)
    assert [fail(breaker, chance=chance) for _ in range(5)] == [False, False, False, False, True]
    return breaker, breaker.retry_at_s(NOW_S)


def picture(breaker: Breaker) -> dict[str, object]:
    return {name: getattr(breaker, name) for name in Breaker.__slots__}


# --- Closed --------------------------------------------------------------------------------------


def test_a_new_breaker_is_closed_and_admits_as_many_as_come() -> None:
    breaker = Breaker(POLICY)

    assert BreakerState.CLOSED is breaker.state(NOW_S)
    assert all(breaker.admit(NOW_S) is not None for _ in range(100))
    assert breaker.would_admit(NOW_S)
    assert breaker.retry_at_s(NOW_S) == NOW_S


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(POLICY)

    answers = [fail(breaker) for _ in range(5)]

    assert answers == [False, False, False, False, True]
    assert BreakerState.OPEN is breaker.state(NOW_S)


def test_one_success_makes_the_row_start_anew() -> None:
    breaker = Breaker(POLICY)

    for _ in range(3):
        assert not any(fail(breaker) for _ in range(4))
        assert not succeed(breaker)

    assert BreakerState.CLOSED is breaker.state(NOW_S)


def test_it_opens_when_the_failed_share_of_a_window_is_reached() -> None:
    breaker = Breaker(POLICY)
    at_s = [NOW_S + 10 * number / 19 for number in range(20)]

    answers = report(breaker, "FSSF" + "SF" * 8, at_s)

    assert answers == [False] * 19 + [True]


def test_a_share_below_the_ratio_does_not_open_it() -> None:
    breaker = Breaker(POLICY)

    for window in range(3):
        answers = report(breaker, "FSSSSF" + "SF" * 7, [NOW_S + 20 * window] * 20)
        assert answers == [False] * 20


def test_too_few_requests_say_nothing_about_the_share() -> None:
    breaker = Breaker(POLICY)

    for _ in range(9):
        assert not fail(breaker)
        assert not succeed(breaker)

    assert BreakerState.CLOSED is breaker.state(NOW_S)


def test_failures_that_are_further_apart_than_the_window_are_not_added_up() -> None:
    breaker = Breaker(POLICY)

    for number in range(100):
        now_s = NOW_S + number * 1.1
        assert not fail(breaker, now_s)
        assert not succeed(breaker, now_s)


def test_a_permit_given_back_while_closed_says_nothing() -> None:
    breaker = Breaker(POLICY)
    before = picture(breaker)

    breaker.released(admitted(breaker))

    assert before == picture(breaker)


# --- Open ----------------------------------------------------------------------------------------


def test_open_admits_nobody_until_its_time_has_passed() -> None:
    breaker, trial_at_s = opened()

    assert breaker.admit(trial_at_s - 0.001) is None
    assert not breaker.would_admit(trial_at_s - 0.001)
    assert BreakerState.OPEN is breaker.state(trial_at_s - 0.001)
    assert BreakerState.HALF_OPEN is breaker.state(trial_at_s)
    assert breaker.would_admit(trial_at_s)


def test_it_tells_when_the_next_attempt_may_be_possible() -> None:
    breaker, trial_at_s = opened()

    assert trial_at_s == breaker.retry_at_s(NOW_S + 1)
    assert trial_at_s + 5 == breaker.retry_at_s(trial_at_s + 5)


@pytest.mark.parametrize(("chance", "open_for_s"), [(0.0, 9.0), (0.5, 9.5), (1.0 - 2**-53, 10.0)])
def test_chance_shortens_the_time_by_at_most_a_tenth(chance: float, open_for_s: float) -> None:
    _, trial_at_s = opened(chance=chance)

    assert pytest.approx(open_for_s) == trial_at_s - NOW_S


def test_it_remembers_when_it_changed_and_why() -> None:
    breaker, _ = opened()

    assert breaker.changed_at_s == NOW_S
    assert breaker.last_failure == "connect_failed"


def test_asking_changes_nothing() -> None:
    breaker, trial_at_s = opened()
    before = picture(breaker)

    for now_s in (NOW_S, trial_at_s, trial_at_s + 1000):
        breaker.state(now_s)
        breaker.would_admit(now_s)
        breaker.retry_at_s(now_s)
        breaker.is_trial(Permit(0))
        repr(breaker)

    assert before == picture(breaker)


# --- Half-open -----------------------------------------------------------------------------------


def test_half_open_lets_one_trial_out_at_a_time() -> None:
    breaker, trial_at_s = opened()

    trial = admitted(breaker, trial_at_s)

    assert breaker.is_trial(trial)
    assert breaker.admit(trial_at_s) is None
    assert breaker.admit(trial_at_s + 1_000_000) is None
    assert not breaker.would_admit(trial_at_s)
    assert BreakerState.HALF_OPEN is breaker.state(trial_at_s)


def test_no_permit_is_a_trial_while_the_breaker_is_closed() -> None:
    breaker = Breaker(POLICY)

    assert not breaker.is_trial(admitted(breaker))


def test_a_trial_that_is_given_back_leaves_its_place_to_the_next_one() -> None:
    breaker, trial_at_s = opened()

    breaker.released(admitted(breaker, trial_at_s))

    assert BreakerState.HALF_OPEN is breaker.state(trial_at_s)
    assert breaker.is_trial(admitted(breaker, trial_at_s))


def test_a_trial_that_succeeds_closes_it_and_all_counts_start_anew() -> None:
    breaker, trial_at_s = opened()

    closed = succeed(breaker, trial_at_s)

    assert closed
    assert BreakerState.CLOSED is breaker.state(trial_at_s)
    assert breaker.changed_at_s == trial_at_s
    assert not any(fail(breaker, trial_at_s) for _ in range(4))
    assert fail(breaker, trial_at_s)


def test_failures_before_an_outage_are_not_added_to_those_after_it() -> None:
    """The outage may be shorter than the window; its failures were paid for already."""
    breaker, trial_at_s = opened()
    assert trial_at_s - NOW_S < POLICY.window_s
    assert succeed(breaker, trial_at_s)

    answers = [(succeed(breaker, trial_at_s), fail(breaker, trial_at_s)) for _ in range(7)]

    assert answers == [(False, False)] * 7


def test_each_failed_trial_doubles_the_time_up_to_the_longest() -> None:
    breaker, now_s = opened(chance=0.0)

    times_s = []
    for _ in range(5):
        assert fail(breaker, now_s, chance=0.0)
        times_s.append(round(breaker.retry_at_s(now_s) - now_s, 6))
        now_s = breaker.retry_at_s(now_s)

    assert times_s == [18.0, 36.0, 54.0, 54.0, 54.0]


def test_closing_makes_the_doubling_start_anew() -> None:
    breaker, trial_at_s = opened(chance=0.0)
    assert fail(breaker, trial_at_s, chance=0.0)
    now_s = breaker.retry_at_s(trial_at_s)
    assert succeed(breaker, now_s)

    for _ in range(5):
        fail(breaker, now_s, chance=0.0)

    assert pytest.approx(9.0) == breaker.retry_at_s(now_s) - now_s


def test_an_instance_that_stays_dead_for_ever_breaks_no_arithmetic() -> None:
    breaker, now_s = opened()

    for _ in range(1100):
        assert fail(breaker, now_s)
        now_s = breaker.retry_at_s(now_s)

    assert now_s < NOW_S + 1101 * POLICY.max_open_for_s


# --- Epochs --------------------------------------------------------------------------------------


def test_what_was_sent_before_an_outage_says_nothing_after_it() -> None:
    breaker = Breaker(POLICY)
    early = [admitted(breaker) for _ in range(3)]
    for _ in range(5):
        fail(breaker)
    trial_at_s = breaker.retry_at_s(NOW_S)
    trial = admitted(breaker, trial_at_s)
    before = picture(breaker)

    assert not breaker.succeeded(early[0], trial_at_s)
    assert not breaker.failed(early[1], trial_at_s, why="head_timeout", chance=0.5)
    breaker.released(early[2])

    assert before == picture(breaker)
    assert not breaker.is_trial(early[0])
    assert breaker.is_trial(trial)


# --- Policies and repr ---------------------------------------------------------------------------


def test_another_policy_holds_from_the_next_failure_on_and_the_state_stays() -> None:
    breaker = Breaker(POLICY)
    assert not any(fail(breaker) for _ in range(2))

    breaker.adopt(dataclasses.replace(POLICY, consecutive_failures=3, open_for_s=1.0))

    assert BreakerState.CLOSED is breaker.state(NOW_S)
    assert fail(breaker, chance=0.0)
    assert pytest.approx(0.9) == breaker.retry_at_s(NOW_S) - NOW_S


def test_a_breaker_shows_its_state() -> None:
    breaker, trial_at_s = opened(chance=0.5)

    assert repr(Breaker(POLICY)) == "<Breaker closed, 0 in a row, epoch 0>"
    assert repr(breaker) == "<Breaker open until 1009.5, 0 in a row, epoch 1>"
    assert trial_at_s == 1009.5


# --- Slow answers --------------------------------------------------------------------------------

SLOW = dataclasses.replace(POLICY, slow_after_s=2.0, slow_ratio=0.5)


def slow(breaker: Breaker, now_s: float = NOW_S) -> bool:
    return breaker.slowed(admitted(breaker, now_s), now_s, chance=0.5)


def test_it_opens_when_the_slow_share_of_a_window_is_reached() -> None:
    breaker = Breaker(SLOW)

    answers = [(slow(breaker), succeed(breaker)) for _ in range(9)]

    assert answers == [(False, False)] * 9
    assert [slow(breaker), slow(breaker)] == [False, True]
    assert breaker.last_failure == "slow_answers"
    assert BreakerState.OPEN is breaker.state(NOW_S)


def test_what_was_slow_longer_ago_than_the_window_does_not_count() -> None:
    breaker = Breaker(SLOW)
    assert not any(slow(breaker) for _ in range(19))

    assert not slow(breaker, NOW_S + 10.1)


def test_a_slow_answer_ends_a_row_of_failures() -> None:
    breaker = Breaker(SLOW)
    assert not any(fail(breaker) for _ in range(4))

    slow(breaker)

    assert not any(fail(breaker) for _ in range(4))


def test_a_trial_that_is_slow_has_not_succeeded() -> None:
    breaker, trial_at_s = opened()

    assert slow(breaker, trial_at_s)
    assert BreakerState.OPEN is breaker.state(trial_at_s)


def test_a_slow_answer_of_before_an_outage_says_nothing() -> None:
    breaker = Breaker(SLOW)
    early = admitted(breaker)
    for _ in range(5):
        fail(breaker)
    before = picture(breaker)

    assert not breaker.slowed(early, NOW_S, chance=0.5)
    assert before == picture(breaker)


# --- What only its Company asks for ---------------------------------------------------------------


def test_a_trial_may_be_let_out_ahead_of_its_time_but_only_one_a_second() -> None:
    breaker, trial_at_s = opened()

    permit = breaker.admit_trial(NOW_S + 1)

    assert permit is not None
    assert breaker.is_trial(permit)
    assert breaker.has_trial_out
    assert breaker.tried_at_s == NOW_S + 1
    assert breaker.admit_trial(NOW_S + 1.9) is None
    assert breaker.admit_trial(NOW_S + 2) == permit
    assert not breaker.failed(permit, NOW_S + 2, why="connect_failed", chance=0.5)
    assert not breaker.has_trial_out
    assert trial_at_s == breaker.retry_at_s(NOW_S)


def test_a_closed_one_has_no_trials_to_give() -> None:
    assert Breaker(POLICY).admit_trial(NOW_S) is None


def test_what_was_let_through_anyway_may_close_it_but_never_prolongs_it() -> None:
    breaker, trial_at_s = opened()

    assert not breaker.failed(breaker.admit_anyway(), NOW_S + 1, why="test", chance=0.5)
    assert trial_at_s == breaker.retry_at_s(NOW_S)
    assert breaker.succeeded(breaker.admit_anyway(), NOW_S + 1)
    assert breaker.failures_in_a_row == 0


def test_hurry_lets_an_open_one_try_at_once_and_does_nothing_to_a_closed_one() -> None:
    breaker, _ = opened()
    closed = Breaker(POLICY)

    breaker.hurry(NOW_S + 1)
    closed.hurry(NOW_S + 1)

    assert breaker.would_admit(NOW_S + 1)
    assert BreakerState.CLOSED is closed.state(NOW_S)


def test_one_that_is_alone_is_never_spared() -> None:
    assert not Breaker(POLICY).rest(NOW_S, for_s=1.0)


def test_one_that_is_given_up_again_and_again_opens_unless_it_answers_between() -> None:
    breaker = Breaker(BreakerPolicy(min_requests=3))

    for _ in range(2):
        assert not breaker.gave_up(admitted(breaker), NOW_S, chance=0.0)
    breaker.succeeded(admitted(breaker), NOW_S)
    seen = [breaker.gave_up(admitted(breaker), NOW_S, chance=0.0) for _ in range(3)]

    assert seen == [False, False, True]
    assert (breaker.state(NOW_S), breaker.last_failure) == (BreakerState.OPEN, "given_up")


def test_a_trial_that_is_given_up_has_not_succeeded() -> None:
    breaker = Breaker(BreakerPolicy(min_requests=1, open_for_s=10.0))
    old = admitted(breaker)
    breaker.gave_up(admitted(breaker), NOW_S, chance=0.0)
    later_s = NOW_S + 10.0
    trial = breaker.admit(later_s)
    assert trial is not None

    assert not breaker.gave_up(old, later_s, chance=0.0)
    assert breaker.gave_up(trial, later_s, chance=0.0)
    assert breaker.state(later_s + 10.0) is BreakerState.OPEN


class Unwilling:
    """A Company that spares nobody."""

    holds_trials = False

    def may_open(self, breaker: Breaker, *, was_reached: bool) -> bool:
        return False

    def is_only_one(self, breaker: Breaker) -> bool:
        return True

    def may_rest(self, breaker: Breaker) -> bool:
        return False

    def changed(self, now_s: float) -> None:
        raise AssertionError("nobody may open")


def test_one_that_is_given_up_stays_where_too_many_are_shut_out() -> None:
    breaker = Breaker(BreakerPolicy(min_requests=1), Unwilling())

    assert not breaker.gave_up(admitted(breaker), NOW_S, chance=0.0)
    assert breaker.state(NOW_S) is BreakerState.CLOSED
