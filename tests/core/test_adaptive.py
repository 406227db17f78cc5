"""A limit that follows the latency: a service is played that has so much room and no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.adaptive import FIRST_LIMIT, LEAST_LIMIT, AdaptiveLimit

NOW_S = 1000.0


def play(
    limit: AdaptiveLimit,
    *,
    room: int,
    seconds: int,
    demand: int = 10_000,
    alone_s: float = 0.02,
    from_s: float = NOW_S,
) -> list[int]:
    """Let a service of so much room answer as many at once as the limit lets through.

    Up to its room each answer takes `alone_s`; beyond it requests wait for each other.
    """
    limits = []
    for tick in range(seconds * 4):
        in_flight = min(demand, limit.limit)
        latency_s = alone_s * max(1.0, in_flight / room)
        for _ in range(10):
            limit.answered(latency_s, in_flight, from_s + tick / 4)
        limits.append(limit.limit)
    return limits


def test_it_grows_to_what_the_service_can_take_and_stays_near_it() -> None:
    limits = play(AdaptiveLimit(), room=100, seconds=60)

    assert min(limits[-80:]) >= 100
    assert max(limits[-80:]) <= 300


def test_it_falls_when_the_service_loses_room() -> None:
    limit = AdaptiveLimit()
    play(limit, room=200, seconds=60)

    limits = play(limit, room=20, seconds=20, from_s=NOW_S + 60)

    assert limits[-1] < 80


def test_a_service_that_slowly_drowns_does_not_come_to_look_normal() -> None:
    limit = AdaptiveLimit()

    limits = play(limit, room=50, seconds=600)

    assert limits[-1] <= 200


def test_whoever_is_idle_changes_nothing() -> None:
    limit = AdaptiveLimit()

    limits = play(limit, room=100, seconds=60, demand=2)

    assert set(limits) == {FIRST_LIMIT}


def test_a_service_that_is_slow_by_nature_is_not_held_back() -> None:
    limits = play(AdaptiveLimit(), room=100, seconds=60, alone_s=3.0)

    assert limits[-1] >= 100


def test_an_answer_that_did_not_come_lowers_it_but_not_to_nothing() -> None:
    limit = AdaptiveLimit()

    limit.timed_out()
    assert limit.limit == 18
    for _ in range(100):
        limit.timed_out()
    assert limit.limit == LEAST_LIMIT


def test_it_never_passes_the_most_that_it_may_be() -> None:
    limit = AdaptiveLimit(30)

    assert max(play(limit, room=1000, seconds=60)) == 30
    assert repr(limit) == "<AdaptiveLimit 30, 20.0 ms uncrowded>"


def test_a_few_answers_or_a_moment_are_not_enough_to_go_by() -> None:
    limit = AdaptiveLimit()
    for _ in range(9):
        limit.answered(0.02, 20, NOW_S)
    for _ in range(50):
        limit.answered(0.02, 20, NOW_S + 0.1)

    assert limit.limit == pytest.approx(FIRST_LIMIT, abs=1)


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.integers(0, 1000), st.floats(0, 1), st.booleans()),
        max_size=200,
    ),
    st.integers(1, 500),
)
def test_whatever_it_hears_it_stays_within_its_bounds(
    heard: list[tuple[float, int, float, bool]], most: int
) -> None:
    limit = AdaptiveLimit(most)
    now_s = NOW_S
    for latency_s, in_flight, pause_s, is_timeout in heard:
        now_s += pause_s
        if is_timeout:
            limit.timed_out()
        else:
            limit.answered(latency_s, in_flight, now_s)
        assert LEAST_LIMIT <= limit.limit <= max(most, LEAST_LIMIT)
