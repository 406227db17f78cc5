"""Failures that a request can bring about at an instance that is well: whom they shut out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import ALONE, Breaker, BreakerState
from gateway.core.breakers import Breakers
from gateway.core.policy import BreakerPolicy

NOW_S = 1000.0
POLICY = BreakerPolicy(consecutive_failures=3, min_requests=6, open_for_s=10.0)
BY_SHARE = dataclasses.replace(POLICY, consecutive_failures=1000)
ONE, OTHER = b"192.0.2.1", b"192.0.2.2"


def closed_on(breaker: Breaker, client: bytes, now_s: float = NOW_S) -> bool:
    """Let it close on a request of this client; True if the Breaker changed."""
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(permit, now_s, why="disconnected_early", chance=0.5, client=client)


def unreached(breaker: Breaker, now_s: float = NOW_S) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(permit, now_s, why="connect_failed", chance=0.5, was_reached=False)


def late(breaker: Breaker, now_s: float = NOW_S) -> bool:
    permit = breaker.admit(now_s)
    assert permit is not None
    return breaker.failed(permit, now_s, why="head_timeout", chance=0.5)


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

    assert breaker.failed(permit, NOW_S + 1.0, why="disconnected_early", chance=0.5, client=ONE)

    assert not breaker.is_shut
    assert not company.is_outage


# --- Laws ----------------------------------------------------------------------------------------


@given(
    steps=st.lists(st.sampled_from(["close", "answer", "wait"]), max_size=200),
    consecutive=st.integers(1, 5),
    ratio=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_whatever_one_client_meets_it_never_shuts_an_instance_out(
    steps: Iterable[str], consecutive: int, ratio: float
) -> None:
    breaker, _ = two(
        BreakerPolicy(consecutive_failures=consecutive, failure_ratio=ratio, min_requests=2)
    )
    now_s = NOW_S

    for step in steps:
        if step == "close":
            closed_on(breaker, ONE, now_s)
        elif step == "answer":
            answered(breaker, now_s)
        else:
            now_s += 4.0
        assert not breaker.is_shut


@given(clients=st.lists(st.sampled_from([ONE, OTHER, b"192.0.2.3"]), max_size=100))
def test_the_only_instance_serves_whoever_it_closes_on(clients: list[bytes]) -> None:
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
