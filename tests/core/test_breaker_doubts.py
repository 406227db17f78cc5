"""Failures that may be the doing of the client that asked: whom they shut out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import ALONE, Breaker, BreakerState
from gateway.core.breakers import Breakers
from gateway.core.doubts import Asker
from gateway.core.policy import BreakerPolicy

NOW_S = 1000.0
POLICY = BreakerPolicy(consecutive_failures=3, min_requests=6, open_for_s=10.0)
BY_SHARE = dataclasses.replace(POLICY, consecutive_failures=1000)
ONE, OTHER = b"192.0.2.1", b"192.0.2.2"
LONE = Asker(ONE, is_doubted=False)  # nobody else is served


def doubted(client: bytes | Asker | None) -> Asker | None:
    return Asker(client, is_doubted=True) if isinstance(client, bytes) else client


def closed_on(breaker: Breaker, client: bytes | Asker, now_s: float = NOW_S) -> bool:
    """Let it close on a request of this client; True if the Breaker changed."""
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(
        permit, now_s, why="disconnected_early", chance=0.5, has_closed=True, asker=doubted(client)
    )


def unreached(breaker: Breaker, now_s: float = NOW_S) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(permit, now_s, why="connect_failed", chance=0.5, was_reached=False)


def late(breaker: Breaker, now_s: float = NOW_S, *, client: bytes | Asker | None = None) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(permit, now_s, why="head_timeout", chance=0.5, asker=doubted(client))


def slow(breaker: Breaker, client: bytes, now_s: float = NOW_S) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.slowed(permit, now_s, chance=0.5, asker=doubted(client))


def given_up(breaker: Breaker, client: bytes, now_s: float = NOW_S) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.gave_up(permit, now_s, chance=0.5, asker=doubted(client))


def answered(breaker: Breaker, now_s: float = NOW_S) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.succeeded(permit, now_s)


def two(policy: BreakerPolicy = POLICY) -> tuple[Breaker, Breaker]:
    """Make the Breakers of a service of two."""
    company = Breakers(policy)
    first, second = company.make(), company.make()
    company.watch([first, second], now_s=NOW_S)
    return first, second


def only(policy: BreakerPolicy = POLICY) -> Breaker:
    company = Breakers(policy)
    breaker = company.make()
    company.watch([breaker], now_s=NOW_S)
    return breaker


# --- A row and a share ---------------------------------------------------------------------------


def test_a_row_of_one_client_never_opens_it() -> None:
    breaker, _ = two()

    assert [closed_on(breaker, ONE) for _ in range(100)] == [False] * 100
    assert (breaker.failures_in_a_row, breaker.counted_in_a_row) == (100, 0)
    assert not breaker.is_withheld


def test_the_second_client_that_meets_it_makes_the_row_count() -> None:
    breaker, _ = two()

    assert [closed_on(breaker, one) for one in (ONE, ONE, OTHER)] == [False, False, True]


def test_a_connect_that_fails_makes_the_row_count() -> None:
    breaker, _ = two()

    assert not closed_on(breaker, ONE)
    assert not unreached(breaker)
    assert closed_on(breaker, ONE)


def test_what_is_late_counts_by_itself_and_makes_nothing_else_count() -> None:
    breaker, _ = two()

    assert [closed_on(breaker, ONE), late(breaker), late(breaker)] == [False] * 3
    assert late(breaker)


def test_a_success_ends_the_row_and_what_was_known_of_its_clients() -> None:
    breaker, _ = two()
    closed_on(breaker, ONE)
    closed_on(breaker, OTHER)

    answered(breaker)

    assert breaker.counted_in_a_row == 0
    assert [closed_on(breaker, ONE) for _ in range(4)] == [False] * 4


def test_one_client_counts_for_no_more_than_all_others_and_one() -> None:
    """Or a single failure of somebody else would make all of a flood count."""
    breaker, _ = two(dataclasses.replace(POLICY, consecutive_failures=5))
    closed_on(breaker, OTHER)

    assert [closed_on(breaker, ONE) for _ in range(50)] == [False] * 50
    assert breaker.counted_in_a_row == 3
    assert closed_on(breaker, OTHER)


def test_more_clients_than_are_told_apart_count_each() -> None:
    breaker, _ = two(dataclasses.replace(POLICY, consecutive_failures=100, min_requests=1000))

    rows = [closed_on(breaker, b"192.0.2.%d" % number) for number in range(100)]

    assert rows == [False] * 99 + [True]


def test_one_client_is_left_out_of_the_share_on_both_sides() -> None:
    """It must neither open it nor hide what the others meet."""
    breaker, _ = two(BY_SHARE)

    assert [closed_on(breaker, ONE) for _ in range(50)] == [False] * 50
    assert not any(answered(breaker) for _ in range(3))
    assert [late(breaker) for _ in range(3)] == [False, False, True]


def test_several_clients_count_for_the_share() -> None:
    breaker, _ = two(BY_SHARE)

    assert [closed_on(breaker, ONE), answered(breaker)] == [False, False]
    assert [closed_on(breaker, OTHER), answered(breaker)] == [False, False]
    assert [closed_on(breaker, ONE), closed_on(breaker, OTHER)] == [False, True]


def test_the_next_window_knows_nothing_of_the_clients_before() -> None:
    breaker, _ = two(BY_SHARE)
    closed_on(breaker, OTHER)

    later_s = NOW_S + POLICY.window_s + 1

    assert [closed_on(breaker, ONE, later_s) for _ in range(50)] == [False] * 50


def test_rows_of_one_client_at_all_others_are_no_reason_to_shut_out_more_than_half() -> None:
    company = Breakers(POLICY)
    breakers = [company.make() for _ in range(3)]
    company.watch(breakers, now_s=NOW_S)
    first, second, third = breakers
    assert [late(first) for _ in range(3)] == [False, False, True]
    for _ in range(50):
        closed_on(third, ONE)

    assert [late(second) for _ in range(10)] == [False] * 10


# --- The only one that takes connections ---------------------------------------------------------


def test_an_only_instance_is_never_shut_out_for_closing() -> None:
    breaker = only()

    clients = [b"192.0.2.%d" % number for number in range(100)]

    assert [closed_on(breaker, client) for client in clients] == [False] * 100
    assert breaker.is_withheld


def test_an_only_instance_is_shut_out_for_anything_else() -> None:
    is_late, is_gone = only(), only()

    closed_on(is_late, ONE)
    assert [late(is_late) for _ in range(3)] == [False, False, True]
    closed_on(is_gone, ONE)
    assert [unreached(is_gone) for _ in range(2)] == [False, True]


def test_the_last_that_takes_connections_stays_while_the_others_take_none() -> None:
    first, second = two()
    for _ in range(3):
        unreached(first)

    assert [closed_on(second, one) for one in (ONE, OTHER) * 50] == [False] * 100
    assert not second.is_shut


def test_all_that_close_on_everybody_are_shut_out_in_the_end() -> None:
    first, second = two()

    assert [closed_on(first, one) for one in (ONE, OTHER, ONE)] == [False, False, True]
    assert [closed_on(second, one) for one in (ONE, OTHER) * 3] == [False] * 5 + [True]


def test_one_client_that_meets_nothing_but_closing_shuts_out_what_can_be_spared() -> None:
    """All requests may come from one address, and an instance that crashes on each is of no use."""
    first, second = two()

    assert [closed_on(first, LONE) for _ in range(3)] == [False, False, True]
    assert [closed_on(second, LONE) for _ in range(100)] == [False] * 100
    assert second.is_withheld


def test_closing_on_one_client_that_is_alone_shuts_out_no_only_instance() -> None:
    breaker = only()

    assert [closed_on(breaker, LONE) for _ in range(100)] == [False] * 100


def test_a_connect_that_fails_makes_closing_on_one_that_is_alone_count_for_all() -> None:
    first, second = two(dataclasses.replace(POLICY, max_open_ratio=0.1))

    for _ in range(3):
        unreached(first)
    assert not unreached(second)

    assert [closed_on(second, LONE) for _ in range(5)] == [False] * 5
    assert unreached(second)


def test_what_is_late_for_several_clients_shuts_out_the_only_instance() -> None:
    """Their requests would each cost the whole timeout."""
    breaker = only()

    assert [late(breaker, client=one) for one in (ONE, OTHER, ONE)] == [False, False, True]


def test_what_is_late_for_one_client_shuts_out_nobody_while_others_are_served() -> None:
    breaker = only()

    assert [late(breaker, client=ONE) for _ in range(100)] == [False] * 100
    assert (breaker.counted_in_a_row, breaker.is_withheld) == (0, False)


def test_what_is_late_for_another_one_makes_what_is_doubted_count() -> None:
    breaker = only()

    assert [late(breaker, client=OTHER) for _ in range(2)] == [False, False]
    assert breaker.counted_in_a_row == 0
    assert late(breaker, client=LONE)


def test_of_one_client_only_what_is_doubted_is_left_out() -> None:
    breaker = only()

    assert [late(breaker, client=one) for one in (LONE, ONE, ONE, LONE)] == [False] * 4
    assert breaker.counted_in_a_row == 2
    assert late(breaker, client=LONE)


def test_closing_on_several_shuts_out_all_that_fail_whoever_was_served() -> None:
    first, second = two()
    others = Asker(OTHER, is_doubted=False)

    assert [closed_on(first, one) for one in (LONE, others, LONE)] == [False, False, True]
    assert [closed_on(second, one) for one in (LONE, others) * 3] == [False] * 5 + [True]


def test_closing_does_not_add_to_what_is_late_for_the_only_instance() -> None:
    breaker = only()
    for client in (ONE, OTHER):
        closed_on(breaker, client)

    assert [late(breaker, client=ONE) for _ in range(50)] == [False] * 50
    assert late(breaker, client=OTHER)


def test_one_that_may_get_no_traffic_is_not_the_only_one() -> None:
    company = Breakers(POLICY)
    breaker = company.make()

    assert not company.is_only_one(breaker)


def test_a_breaker_without_company_is_not_the_only_one() -> None:
    breaker = Breaker(POLICY)

    assert not ALONE.is_only_one(breaker)


# --- Trials --------------------------------------------------------------------------------------


def half_open() -> tuple[Breaker, float]:
    breaker, _ = two()
    for _ in range(3):
        unreached(breaker)
    return breaker, NOW_S + 10.0


def test_a_trial_that_closes_on_one_client_says_nothing_and_the_next_may_be_anybodys() -> None:
    breaker, now_s = half_open()

    assert [closed_on(breaker, ONE, now_s) for _ in range(20)] == [False] * 20
    assert breaker.state(now_s) is BreakerState.HALF_OPEN
    assert answered(breaker, now_s)


def test_a_trial_that_closes_on_a_second_client_has_failed() -> None:
    breaker, now_s = half_open()

    assert not closed_on(breaker, ONE, now_s)
    assert closed_on(breaker, OTHER, now_s)
    assert breaker.state(now_s) is BreakerState.OPEN


def test_a_trial_that_the_only_instance_closes_says_that_it_takes_connections() -> None:
    company = Breakers(POLICY)
    breaker = company.make()
    company.watch([breaker], now_s=NOW_S)
    for _ in range(3):
        unreached(breaker)
    permit = breaker.admit_trial(NOW_S + 1.0)
    assert permit is not None

    assert breaker.failed(
        permit,
        NOW_S + 1.0,
        why="disconnected_early",
        chance=0.5,
        has_closed=True,
        asker=doubted(ONE),
    )

    assert not breaker.is_shut
    assert not company.is_outage


def test_a_trial_that_is_late_for_one_client_says_nothing_while_there_were_others() -> None:
    breaker, now_s = half_open()

    assert [late(breaker, now_s, client=ONE) for _ in range(20)] == [False] * 20
    assert breaker.state(now_s) is BreakerState.HALF_OPEN
    assert late(breaker, now_s, client=OTHER)
    assert breaker.state(now_s) is BreakerState.OPEN


def test_a_trial_that_is_late_for_the_only_client_has_failed() -> None:
    breaker, now_s = half_open()

    assert not late(breaker, now_s, client=ONE)
    assert late(breaker, now_s, client=LONE)


def test_a_trial_that_is_slow_or_given_up_for_one_client_says_nothing() -> None:
    breaker, now_s = half_open()

    for fails in (slow, given_up):
        assert [fails(breaker, ONE, now_s) for _ in range(20)] == [False] * 20
        assert breaker.state(now_s) is BreakerState.HALF_OPEN
    assert given_up(breaker, OTHER, now_s)

    later_s = breaker.retry_at_s(now_s)
    assert not slow(breaker, ONE, later_s)
    assert slow(breaker, OTHER, later_s + POLICY.window_s + 1)
    assert breaker.last_failure == "slow_answers"


# --- Slow answers, hedges, and what an instance asks for -----------------------------------------

MINDS_SLOWNESS = dataclasses.replace(POLICY, slow_after_s=1.0)


def test_slow_answers_to_one_client_are_left_out_of_the_share() -> None:
    breaker, _ = two(MINDS_SLOWNESS)

    assert [slow(breaker, ONE) for _ in range(50)] == [False] * 50
    assert [slow(breaker, OTHER) for _ in range(3)] == [False, False, True]


def test_one_that_loses_to_hedges_for_one_client_alone_stays() -> None:
    breaker, _ = two()

    assert [given_up(breaker, ONE) for _ in range(50)] == [False] * 50
    assert [given_up(breaker, OTHER) for _ in range(3)] == [False, False, True]


def test_an_answer_ends_what_is_known_of_hedges() -> None:
    breaker, _ = two()
    for client in (ONE, OTHER) * 2:
        given_up(breaker, client)

    answered(breaker)

    assert [given_up(breaker, client) for client in (ONE, OTHER) * 2] == [False] * 4


def test_an_instance_that_asks_one_client_to_come_again_does_not_rest_for_the_others() -> None:
    breaker, _ = two()
    late(breaker, client=ONE)
    assert not breaker.rest(NOW_S, for_s=5.0, asker=doubted(ONE))

    late(breaker, client=OTHER)

    assert breaker.rest(NOW_S, for_s=5.0, asker=doubted(OTHER))


def test_an_instance_that_serves_one_client_only_rests_when_it_asks_for_it() -> None:
    breaker, _ = two()

    assert breaker.rest(NOW_S, for_s=5.0)


# --- Since when ----------------------------------------------------------------------------------


def test_a_failure_is_doubted_for_who_was_served_meanwhile_or_within_the_window() -> None:
    breaker, _ = two()

    assert breaker.doubts_since_s(NOW_S, NOW_S - 1.0) == NOW_S - POLICY.window_s
    assert breaker.doubts_since_s(NOW_S, NOW_S - 30.0) == NOW_S - 30.0


def test_a_trial_is_doubted_for_who_was_served_before_the_outage_but_not_for_ever() -> None:
    breaker, later_s = half_open()

    assert breaker.doubts_since_s(later_s, later_s) == NOW_S - POLICY.window_s
    assert late(breaker, later_s)
    assert breaker.doubts_since_s(later_s + 100.0, later_s) == NOW_S - POLICY.window_s
    assert breaker.doubts_since_s(NOW_S + 1000.0, NOW_S + 1000.0) == NOW_S + 700.0
    permit = breaker.admit_anyway()
    breaker.succeeded(permit, NOW_S + 1000.0)
    assert breaker.doubts_since_s(NOW_S + 1000.0, NOW_S + 1000.0) == NOW_S + 990.0


# --- Laws ----------------------------------------------------------------------------------------


STEPS = ["close", "late", "slow", "given up", "rest", "answer", "wait"]


@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=200),
    consecutive=st.integers(1, 5),
    ratio=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_whatever_one_client_meets_it_never_shuts_an_instance_out(
    steps: Iterable[str], consecutive: int, ratio: float
) -> None:
    policy = BreakerPolicy(
        consecutive_failures=consecutive, failure_ratio=ratio, min_requests=2, slow_after_s=1.0
    )
    for breaker in (two(policy)[0], only(policy)):
        now_s = NOW_S
        for step in steps:
            now_s += 4.0 * (step == "wait")
            meet(breaker, step, now_s)
            assert not breaker.is_shut


def meet(breaker: Breaker, step: str, now_s: float) -> None:
    """Let the one client, or for an answer anybody, meet this."""
    if step == "close":
        closed_on(breaker, ONE, now_s)
    elif step == "late":
        late(breaker, now_s, client=ONE)
    elif step == "slow":
        slow(breaker, ONE, now_s)
    elif step == "given up":
        given_up(breaker, ONE, now_s)
    elif step == "rest":
        breaker.rest(now_s, for_s=1.0, asker=doubted(ONE))
    elif step == "answer":
        answered(breaker, now_s)


@given(clients=st.lists(st.sampled_from([LONE, ONE, OTHER, b"192.0.2.3"]), max_size=100))
def test_closing_never_shuts_out_both_of_two_unless_it_meets_several(
    clients: list[bytes | Asker],
) -> None:
    """Whoever is not known to be one of several cannot take the last instance from the others."""
    first, second = two(BreakerPolicy(consecutive_failures=1, min_requests=1))

    for client in clients:
        for breaker in (first, second):
            if not breaker.is_shut:
                closed_on(breaker, client)
    if not {OTHER, b"192.0.2.3"} & set(clients):
        assert not (first.is_shut and second.is_shut)


@given(clients=st.lists(st.sampled_from([LONE, ONE, OTHER, b"192.0.2.3"]), max_size=100))
def test_the_only_instance_serves_whoever_it_closes_on(clients: list[bytes | Asker]) -> None:
    breaker = only(BreakerPolicy(consecutive_failures=1, min_requests=1))

    for client in clients:
        closed_on(breaker, client)
        assert not breaker.is_shut


@pytest.mark.parametrize("count", range(1, 6))
def test_a_crash_costs_as_many_requests_as_before_where_there_are_several_clients(
    count: int,
) -> None:
    breaker, _ = two(dataclasses.replace(POLICY, consecutive_failures=count))

    rows = [closed_on(breaker, b"192.0.2.%d" % number) for number in range(max(count, 2))]

    assert rows == [False] * (max(count, 2) - 1) + [True]


def test_a_limit_that_one_client_meets_is_nothing_to_others_until_another_meets_it() -> None:
    """It is no failure, so whom it met is kept apart, and forgotten after the window."""
    breaker, _ = two()

    def limits(client: bytes, now_s: float) -> bool:
        return breaker.rest(now_s, for_s=1.0, asker=doubted(client), was_failure=False)

    assert not limits(ONE, NOW_S)
    assert not limits(OTHER, NOW_S + POLICY.window_s + 1)
    assert limits(ONE, NOW_S + POLICY.window_s + 2)
    assert (breaker.ended_count, breaker.failures_in_a_row) == (0, 0)
