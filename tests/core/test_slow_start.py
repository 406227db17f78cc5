"""Slow start: a straight ramp, for those that are new beside others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import Breaker
from gateway.core.model import Instance
from gateway.core.policy import BreakerPolicy
from gateway.core.slow_start import LEAST_SHARE, least_share, share_at, weigh

NOW_S = 1000.0


class Runner:
    """Something that may be starting."""

    def __init__(self, weight: int = 1, age_s: float | None = None) -> None:
        self.instance = Instance(key="k", id="k", host="h", port=80, weight=weight)
        self.breaker = Breaker(BreakerPolicy(consecutive_failures=1))
        self.weight = 0.0
        self.serves_since_s = None if age_s is None else NOW_S - age_s


@pytest.mark.parametrize(
    ("age_s", "share"), [(-1.0, 0.1), (0.0, 0.1), (3.0, 0.1), (15.0, 0.5), (30.0, 1.0), (99.0, 1.0)]
)
def test_the_share_is_a_straight_line_from_a_tenth(age_s: float, share: float) -> None:
    assert share_at(age_s, 30.0) == pytest.approx(share)


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0.1, 500))
def test_the_share_never_shrinks(age_s: float, later_s: float, slow_start_s: float) -> None:
    assert LEAST_SHARE <= share_at(age_s, slow_start_s) <= share_at(age_s + later_s, slow_start_s)


def test_a_new_one_beside_others_starts_with_little() -> None:
    tier = [Runner(), Runner(weight=2), Runner(weight=4, age_s=15.0)]

    is_starting = weigh(tier, now_s=NOW_S, slow_start_s=30.0)

    assert is_starting
    assert [one.weight for one in tier] == [1.0, 2.0, 2.0]


def test_after_its_time_it_has_its_weight() -> None:
    tier = [Runner(), Runner(weight=3, age_s=30.0)]

    assert not weigh(tier, now_s=NOW_S, slow_start_s=30.0)
    assert [one.weight for one in tier] == [1.0, 3.0]


def test_without_slow_start_everybody_has_its_weight_at_once() -> None:
    tier = [Runner(weight=2, age_s=0.0), Runner()]

    assert not weigh(tier, now_s=NOW_S, slow_start_s=None)
    assert [one.weight for one in tier] == [2.0, 1.0]


def test_where_all_are_new_they_are_equal() -> None:
    tier = [Runner(age_s=0.0), Runner(age_s=0.0)]

    weigh(tier, now_s=NOW_S, slow_start_s=30.0)

    assert tier[0].weight == tier[1].weight > 0


def test_one_whose_breaker_is_open_carries_nothing() -> None:
    """Of ten, five are new, and four of the others are sick: the last one must not do it all."""
    tier = [*(Runner() for _ in range(5)), *(Runner(age_s=0.0) for _ in range(5))]
    for sick in tier[:4]:
        permit = sick.breaker.admit(NOW_S)
        assert permit is not None
        sick.breaker.failed(permit, NOW_S, why="test", chance=0.5)

    weigh(tier, now_s=NOW_S, slow_start_s=30.0)

    able = tier[4:]
    assert able[0].weight / sum(one.weight for one in able) <= 2.000001 / len(able)


@given(
    st.lists(
        st.builds(Runner, st.integers(0, 9), st.none() | st.floats(0, 40)), min_size=1, max_size=9
    )
)
def test_no_established_one_gets_more_than_twice_its_even_share(tier: list[Runner]) -> None:
    weigh(tier, now_s=NOW_S, slow_start_s=30.0)

    full = sum(one.instance.weight for one in tier)
    now = sum(one.weight for one in tier)
    assert all(0 <= one.weight <= one.instance.weight for one in tier)
    if now:
        assert full / now <= 2.000001 or all(one.weight < one.instance.weight for one in tier)
    assert bool(now) == bool(full)


def test_nobody_at_all_needs_no_share() -> None:
    assert least_share([]) == 0.0
