"""What the Breakers of one service decide together, case by case."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random

import pytest

from gateway.core.breaker import Breaker, BreakerState
from gateway.core.breakers import Breakers
from gateway.core.policy import BreakerPolicy, WhenAllOpen

NOW_S = 1000.0
POLICY = BreakerPolicy(
    consecutive_failures=2, min_requests=6, open_for_s=10.0, max_open_for_s=300.0
)


@dataclass(frozen=True, slots=True)
class Owner:
    breaker: Breaker


def service_of(count: int, policy: BreakerPolicy = POLICY) -> tuple[Breakers, list[Breaker]]:
    company = Breakers(policy)
    breakers = [company.make() for _ in range(count)]
    company.watch(breakers, now_s=NOW_S)
    return company, breakers


def fail(breaker: Breaker, now_s: float = NOW_S, *, was_reached: bool = True) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(permit, now_s, why="head_timeout", chance=0.5, was_reached=was_reached)


def has_had_enough(breaker: Breaker, now_s: float = NOW_S, *, was_reached: bool = True) -> bool:
    """Let it fail as often as it takes; True if it opened."""
    return [fail(breaker, now_s, was_reached=was_reached) for _ in range(2)] == [False, True]


def take_out(*breakers: Breaker) -> None:
    """Let all of them fail until all of them are open."""
    for _ in range(POLICY.min_requests):
        for breaker in breakers:
            if not breaker.is_shut:
                fail(breaker)
    assert shut([*breakers]) == [True] * len(breakers)


def shut(breakers: list[Breaker]) -> list[bool]:
    return [breaker.is_shut for breaker in breakers]


def trial(company: Breakers, breakers: list[Breaker], now_s: float) -> int | None:
    """Ask for the trial of the service; tell whose it is."""
    choice = company.last_resort([Owner(one) for one in breakers], now_s)
    return None if choice is None else breakers.index(choice[0].breaker)


# --- At most a part of them ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "opened"),
    [
        (1, [True]),
        (2, [True, False]),
        (3, [True, False, False]),
        (4, [True, True, False, False]),
    ],
)
def test_half_of_them_open_at_most(count: int, opened: list[bool]) -> None:
    """An only one opens, for its clients are better off with a fast answer."""
    _, breakers = service_of(count)

    assert [has_had_enough(breaker) for breaker in breakers] == opened


def test_the_rest_opens_once_each_that_is_left_fails_and_no_chance_is_as_long() -> None:
    _, breakers = service_of(4)
    for breaker in breakers[:3]:
        has_had_enough(breaker)
    _, _, third, fourth = breakers

    assert [fail(third) for _ in range(8)] == [False] * 8  # the fourth may have had bad luck
    assert [fail(fourth) for _ in range(2)] == [False, True]
    assert fail(third)
    assert shut(breakers) == [True] * 4


def test_two_that_had_enough_at_once_may_have_had_bad_luck() -> None:
    _, breakers = service_of(4)
    for breaker in breakers:
        has_had_enough(breaker)
    _, _, third, fourth = breakers

    assert [fail(third), fail(fourth)] == [False, True]  # six in a row, of the two together


def test_whoever_counts_shares_only_sees_an_outage_too() -> None:
    _, (first, second) = service_of(
        2, dataclasses.replace(POLICY, consecutive_failures=1000, min_requests=3)
    )

    assert [fail(first) for _ in range(3)] == [False, False, True]
    assert [fail(second) for _ in range(3)] == [False, False, True]


def test_what_fails_by_chance_is_never_out_as_a_whole() -> None:
    """Three instances of which each fails every second request, for a quarter of an hour."""
    _, breakers = service_of(3, BreakerPolicy())
    random, now_s = Random(5), NOW_S

    for _ in range(90_000):
        now_s += 0.01
        given = [(one, permit) for one in breakers if (permit := one.admit(now_s)) is not None]
        breaker, permit = random.choice(given)
        if random.random() < 0.5:
            breaker.failed(permit, now_s, why="retriable_status", chance=random.random())
        else:
            breaker.succeeded(permit, now_s)
        assert shut(breakers).count(True) <= 1


def test_one_that_is_withheld_stays_closed_and_says_so_until_its_next_success() -> None:
    _, (first, second, _third) = service_of(3)
    has_had_enough(first)
    has_had_enough(second)

    assert second.is_withheld
    assert "withheld" in repr(second)
    assert BreakerState.CLOSED is second.state(NOW_S)
    permit = second.admit(NOW_S)
    assert permit is not None
    second.succeeded(permit, NOW_S)
    assert not second.is_withheld
    fail(second)
    assert not second.is_withheld


def test_one_that_is_withheld_opens_with_its_next_failure_once_there_is_room() -> None:
    company, (first, second, third) = service_of(3)
    has_had_enough(first)
    has_had_enough(second)

    company.watch([second, third], now_s=NOW_S)  # the first is gone from the registry

    assert fail(second)


def test_whoever_takes_no_connection_may_always_be_shut_out() -> None:
    """It carries nothing, so nothing is lost; and each request that tries it is held up."""
    _, breakers = service_of(4)

    assert [has_had_enough(one, was_reached=False) for one in breakers[:3]] == [True] * 3


def test_slow_ones_are_no_reason_to_shut_out_more_than_half() -> None:
    _, breakers = service_of(3)
    permits = [[one.admit(NOW_S) for _ in range(20)] for one in breakers]

    opened = [
        any(one.slowed(permit, NOW_S, chance=0.5) for permit in given if permit is not None)
        for one, given in zip(breakers, permits, strict=True)
    ]

    assert opened == [True, False, False]


def test_the_share_is_that_of_the_policy() -> None:
    company, breakers = service_of(4)
    company.adopt(dataclasses.replace(POLICY, max_open_ratio=1.0))

    assert [has_had_enough(breaker) for breaker in breakers] == [True] * 4


def test_those_that_may_get_no_traffic_count_neither_way() -> None:
    company, (first, second, third, critical) = service_of(4)
    company.watch([first, second, third], now_s=NOW_S)
    has_had_enough(critical)

    assert critical.is_shut
    assert has_had_enough(first)
    assert not has_had_enough(second)
    assert repr(company) == "<Breakers 1 of 3 shut>"


# --- When all are open ---------------------------------------------------------------------------


def test_one_trial_a_second_is_let_through_and_goes_round() -> None:
    company, breakers = service_of(3, dataclasses.replace(POLICY, max_open_ratio=1.0))
    for breaker in breakers:
        has_had_enough(breaker)

    tenths = range(41)
    trials = [(tenth, trial(company, breakers, NOW_S + tenth / 10)) for tenth in tenths]

    assert company.is_outage
    assert repr(company) == "<Breakers 3 of 3 shut, outage>"
    assert [one for one in trials if one[1] is not None] == [(10, 0), (20, 1), (30, 2), (40, 0)]


def test_a_trial_that_fails_does_not_take_the_word_from_one_that_is_out() -> None:
    company, (only,) = service_of(1)
    has_had_enough(only)
    slow = company.last_resort([Owner(only)], NOW_S + 11)
    quick = company.last_resort([Owner(only)], NOW_S + 12)
    assert slow is not None
    assert quick is not None

    assert not only.failed(quick[1], NOW_S + 12.1, why="head_timeout", chance=0.5)
    assert only.succeeded(slow[1], NOW_S + 12.2)


def test_a_trial_that_takes_its_time_does_not_keep_the_service_out() -> None:
    """It may be an upload whose client sends a byte now and then."""
    company, (only,) = service_of(1)
    has_had_enough(only)
    slow = company.last_resort([Owner(only)], NOW_S + 1)
    quick = company.last_resort([Owner(only)], NOW_S + 2)
    assert slow is not None
    assert quick is not None

    assert only.succeeded(quick[1], NOW_S + 2.1)
    assert not only.failed(slow[1], NOW_S + 9, why="head_timeout", chance=0.5)
    assert not only.is_shut


def test_no_breaker_gives_a_trial_by_itself_meanwhile() -> None:
    _, (only,) = service_of(1)
    has_had_enough(only)

    assert not only.would_admit(NOW_S + 100)
    assert only.admit(NOW_S + 100) is None
    assert BreakerState.HALF_OPEN is only.state(NOW_S + 100)


def test_a_trial_ahead_of_its_time_that_fails_prolongs_nothing() -> None:
    """Else an outage of a minute would shut everybody out for five."""
    company, (only,) = service_of(1)
    has_had_enough(only)
    until_s = only.retry_at_s(NOW_S)

    for second in range(1, 9):
        choice = company.last_resort([Owner(only)], NOW_S + second)
        assert choice is not None
        assert not only.failed(choice[1], NOW_S + second, why="connect_failed", chance=0.5)

    assert until_s == only.retry_at_s(NOW_S)
    assert company.retry_at_s(NOW_S + 8.5) == NOW_S + 9


def test_a_trial_that_is_given_back_leaves_its_place_a_second_later() -> None:
    company, (only,) = service_of(1)
    has_had_enough(only)
    choice = company.last_resort([Owner(only)], NOW_S + 1)
    assert choice is not None

    only.released(choice[1])

    assert trial(company, [only], NOW_S + 1.5) is None
    assert trial(company, [only], NOW_S + 2) == 0


def test_the_first_success_ends_the_outage_and_the_others_get_their_trials_at_once() -> None:
    company, (first, second) = service_of(2)
    take_out(first, second)
    choice = company.last_resort([Owner(first), Owner(second)], NOW_S + 1)
    assert choice is not None

    assert first.succeeded(choice[1], NOW_S + 1.1)

    assert not company.is_outage
    assert BreakerState.HALF_OPEN is second.state(NOW_S + 1.1)
    assert second.admit(NOW_S + 1.1) is not None


def test_whoever_fails_its_trial_after_an_outage_is_open_for_the_first_time_again() -> None:
    company, (first, second) = service_of(2)
    take_out(first, second)
    choice = company.last_resort([Owner(first)], NOW_S + 1)
    assert choice is not None
    first.succeeded(choice[1], NOW_S + 1)

    assert fail(second, NOW_S + 1)
    assert pytest.approx(NOW_S + 1 + 9.5) == second.retry_at_s(NOW_S + 1)


def test_an_outage_by_a_snapshot_has_its_trial_at_once() -> None:
    company, (first, second) = service_of(2)
    has_had_enough(first)

    company.watch([first], now_s=NOW_S)

    assert company.is_outage
    assert trial(company, [first, second], NOW_S) == 0


def test_route_anyway_holds_no_trials_back() -> None:
    policy = dataclasses.replace(POLICY, when_all_open=WhenAllOpen.ROUTE_ANYWAY)
    company, (only,) = service_of(1, policy)
    assert not company.routes_anyway
    has_had_enough(only)

    assert company.routes_anyway
    assert trial(company, [only], NOW_S + 5) is None
    assert only.admit(only.retry_at_s(NOW_S)) is not None
    assert company.retry_at_s(NOW_S) == only.retry_at_s(NOW_S)


def test_nobody_is_no_outage() -> None:
    company = Breakers(POLICY)

    assert not company.is_outage
    assert company.retry_at_s(NOW_S) is None


# --- Rest ----------------------------------------------------------------------------------------


def test_one_that_asks_for_it_is_left_alone_for_so_long_and_then_tried() -> None:
    _, (first, _second) = service_of(2)

    assert first.rest(NOW_S, for_s=3.0)

    assert first.is_resting
    assert first.last_failure == "retry_after"
    assert not first.would_admit(NOW_S + 2.9)
    permit = first.admit(NOW_S + 3)
    assert permit is not None
    assert first.succeeded(permit, NOW_S + 3)
    assert not first.is_resting


def test_a_rest_is_no_opening_when_it_comes_to_doubling() -> None:
    _, (first, _second) = service_of(2)
    first.rest(NOW_S, for_s=1.0)

    assert fail(first, NOW_S + 1)
    assert pytest.approx(NOW_S + 1 + 9.5) == first.retry_at_s(NOW_S + 1)
    assert not first.is_resting


def test_nobody_rests_who_cannot_be_spared() -> None:
    _, (only,) = service_of(1)
    _, (first, second) = service_of(2)
    first.rest(NOW_S, for_s=3.0)

    assert not only.rest(NOW_S, for_s=3.0)
    assert not second.rest(NOW_S, for_s=3.0)
    assert not first.rest(NOW_S, for_s=60.0)
    assert not first.would_admit(NOW_S + 2.9)


def test_those_that_rest_are_woken_before_there_is_an_outage() -> None:
    company, (first, second) = service_of(2)
    first.rest(NOW_S, for_s=3.0)

    take_out(second)

    assert not company.is_outage
    assert shut([first, second]) == [False, True]
    assert not second.would_admit(NOW_S)  # nobody recovered, so nobody is hurried


# --- Instances that restart ----------------------------------------------------------------------


def gone(breaker: Breaker, now_s: float = NOW_S, why: str = "connect_failed") -> None:
    """Let a Breaker open because of this."""
    for _ in range(2):
        permit = breaker.admit(now_s)
        assert permit is not None
        breaker.failed(permit, now_s, why=why, chance=0.5, was_reached=False)
    assert breaker.is_shut


def test_one_that_was_gone_gets_a_trial_when_all_others_have_failed_a_request() -> None:
    """Though they serve others: whoever restarts is back before its Breaker would ask."""
    company, (first, second) = service_of(2)
    gone(first)

    assert trial(company, [first], NOW_S + 0.2) is None
    assert trial(company, [first], NOW_S + 0.25) == 0
    assert trial(company, [first, second], NOW_S + 0.5) is None


@pytest.mark.parametrize("why", ["head_timeout", "retriable_status", "connect_timeout"])
def test_one_that_was_there_is_left_alone_all_the_same(why: str) -> None:
    company, (first, _) = service_of(2)
    gone(first, why=why)

    assert trial(company, [first], NOW_S + 9) is None


def test_a_trial_that_finds_it_gone_still_is_followed_by_none_for_a_second() -> None:
    company, (first, _) = service_of(2)
    gone(first)
    choice = company.last_resort([Owner(first)], NOW_S + 0.5)
    assert choice is not None
    first.failed(choice[1], NOW_S + 0.5, why="connect_failed", chance=0.5)

    assert trial(company, [first], NOW_S + 1.4) is None
    assert trial(company, [first], NOW_S + 1.5) == 0


def test_an_outage_that_another_one_has_just_begun_has_its_first_trial_at_once() -> None:
    company, (first, second) = service_of(2)
    gone(first)

    gone(second, NOW_S + 1)

    assert company.is_outage
    assert company.retry_at_s(NOW_S + 1) == NOW_S + 1
    assert trial(company, [first, second], NOW_S + 1) == 0
    assert trial(company, [first, second], NOW_S + 1.9) is None


def test_an_outage_of_all_at_the_same_time_waits_for_a_second() -> None:
    company, (first, second) = service_of(2)
    gone(first)
    gone(second, NOW_S + 0.1)

    assert trial(company, [first, second], NOW_S + 1) is None
    assert trial(company, [first, second], NOW_S + 1.1) is not None


def test_a_trial_goes_to_the_next_one_where_the_first_has_one_out() -> None:
    company, (first, second) = service_of(2)
    take_out(first, second)
    assert first.admit_trial(NOW_S + 1.5) is not None
    second.tried_at_s = NOW_S + 3  # had its last trial later, so that it comes second

    assert trial(company, [first, second], NOW_S + 2) == 1


@pytest.mark.parametrize("slow_after_s", [None, 0.25])
def test_what_counts_as_slow_is_what_the_policy_says(slow_after_s: float | None) -> None:
    company, _ = service_of(1, dataclasses.replace(POLICY, slow_after_s=slow_after_s))

    assert company.slow_after_s == slow_after_s
