"""A limit that follows the latency: a service is played that has so much room and no more."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.adaptive import FIRST_LIMIT, LEAST_LIMIT, AdaptiveLimit
from tests.fakes.crowded import CrowdedService

NOW_S = 1000.0
Takes = Callable[[Random], float]


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
    answers = 0.0
    for tick in range(seconds * 4):
        in_flight = min(demand, limit.limit)
        latency_s = alone_s * max(1.0, in_flight / room)
        answers += 0.25 * in_flight / latency_s
        while answers >= 1.0:
            answers -= 1.0
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
    limits = play(AdaptiveLimit(), room=100, seconds=180, alone_s=3.0)

    assert limits[-1] >= 100


def test_an_answer_that_did_not_come_lowers_it_but_not_to_nothing() -> None:
    limit = AdaptiveLimit()

    limit.timed_out()
    assert limit.limit == 18
    for _ in range(100):
        limit.timed_out()
    assert limit.limit == LEAST_LIMIT


def exponential(random: Random) -> float:
    return random.expovariate(50.0)


def lognormal(random: Random) -> float:
    return 0.02 * exp(random.gauss(-0.5, 1.0))


def mostly_fast(random: Random) -> float:
    return random.uniform(0.0, 0.5) if random.random() < 0.02 else 0.001


@pytest.mark.parametrize("takes_s", [exponential, lognormal, mostly_fast])
@pytest.mark.parametrize("per_s", [50, 250, 1000])
def test_answers_that_take_long_by_chance_hold_nobody_back(takes_s: Takes, per_s: float) -> None:
    """The mean of such a service jumps about, and its smallest mean is far from what is usual."""
    service = CrowdedService(per_s=per_s, takes_s=takes_s)
    service.play(10)  # it begins with twenty, whoever comes

    outcome = service.play(60)

    assert outcome.refused < 0.001 * outcome.offered
    assert min(outcome.limits) >= FIRST_LIMIT - 2


@pytest.mark.parametrize("hangs", [0.01, 0.03])
def test_a_few_answers_that_never_come_hold_nobody_back(hangs: float) -> None:
    """They hold their places until they are given up: a second here, ten and thirty at a time."""
    service = CrowdedService(per_s=1000, takes_s=exponential, hangs=hangs)
    service.play(30)

    outcome = service.play(60)

    assert outcome.refused < 0.001 * outcome.offered


def test_a_service_with_room_for_hundreds_is_found_to_have_it_within_two_seconds() -> None:
    """Its requests need 100 places at once, and there are 20 to begin with."""
    service = CrowdedService(per_s=5000, takes_s=lognormal)
    service.play(2)

    outcome = service.play(10)

    assert outcome.refused < 0.001 * outcome.offered


def test_where_no_answer_comes_it_falls_as_far_as_it_can() -> None:
    outcome = CrowdedService(per_s=500, takes_s=exponential, hangs=1.0).play(10)

    assert outcome.limits[-1] == LEAST_LIMIT


def test_a_crowded_service_does_as_much_as_it_can_and_has_little_more_in_hand() -> None:
    service = CrowdedService(per_s=2000, takes_s=exponential, workers=20)
    service.play(30)

    outcome = service.play(60)

    assert outcome.answered > 0.98 * 60 * 20 / 0.02
    assert max(outcome.limits) <= 80


def test_a_service_that_loses_most_of_its_workers_is_not_drowned() -> None:
    service = CrowdedService(per_s=900, takes_s=exponential, workers=20, timeout_s=15.0)
    service.play(60)
    service.workers = 5

    service.play(30)
    outcome = service.play(60)

    assert outcome.answered > 0.98 * 60 * 5 / 0.02
    assert max(outcome.limits) <= 100


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
