"""What a row of checks makes of an instance, and how soon the next one is."""

from __future__ import annotations

import pytest

from gateway.core.health import UNKNOWN, CheckState, Opinion, first_delay_s
from gateway.core.policy import HealthCheckPolicy

NOW_S = 1000.0
POLICY = HealthCheckPolicy(path="/health", interval_s=10.0, healthy_after=2, unhealthy_after=3)


def after(results: str, *, start: CheckState = UNKNOWN) -> CheckState:
    """Take checks that passed (+) and failed (-), a second apart."""
    state = start
    for number, result in enumerate(results):
        now_s = NOW_S + number
        passed = result == "+"
        state = state.passed(POLICY, now_s) if passed else state.failed("503", POLICY, now_s)
    return state


@pytest.mark.parametrize(
    ("results", "opinion"),
    [
        ("", Opinion.UNKNOWN),
        ("--", Opinion.UNKNOWN),
        ("---", Opinion.UNHEALTHY),
        ("+", Opinion.HEALTHY),
        ("--+", Opinion.HEALTHY),
        ("+--+--", Opinion.HEALTHY),
        ("+---", Opinion.UNHEALTHY),
        ("---+", Opinion.UNHEALTHY),
        ("---+-+", Opinion.UNHEALTHY),
        ("---++", Opinion.HEALTHY),
    ],
)
def test_the_opinion_changes_after_enough_results_in_a_row(results: str, opinion: Opinion) -> None:
    state = after(results)

    assert opinion is state.opinion
    assert (opinion is Opinion.UNHEALTHY) == state.is_failing


def test_it_is_remembered_why_and_since_when() -> None:
    assert UNKNOWN.changed_at_s is None
    assert (after("+").changed_at_s, after("+").why) == (NOW_S, None)
    assert (after("++-").changed_at_s, after("++-").why) == (NOW_S, "503")
    assert (after("+---+").changed_at_s, after("+---+").why) == (NOW_S + 3, "503")
    assert (after("---++++").changed_at_s, after("---++++").why) == (NOW_S + 4, None)


@pytest.mark.parametrize(
    ("results", "delay_s"),
    [("", 10.0), ("+++", 10.0), ("-", 2.0), ("+-", 2.0), ("---", 2.0), ("---+", 2.0)],
)
def test_checks_are_quicker_while_it_is_not_sure(results: str, delay_s: float) -> None:
    assert delay_s == pytest.approx(after(results).delay_s(POLICY, 0.5))


def test_what_has_failed_for_long_is_checked_at_the_usual_pace() -> None:
    assert after("-" * 12).delay_s(POLICY, 0.5) == pytest.approx(2.0)
    assert after("-" * 13).delay_s(POLICY, 0.5) == pytest.approx(10.0)
    assert after("-" * 13 + "+").delay_s(POLICY, 0.5) == pytest.approx(2.0)


@pytest.mark.parametrize(("interval_s", "quick_s"), [(60.0, 12.0), (3.0, 1.0), (0.5, 0.5)])
def test_quick_is_a_fifth_but_a_second_at_least_and_never_slower(
    interval_s: float, quick_s: float
) -> None:
    policy = HealthCheckPolicy(path="/", interval_s=interval_s)

    assert quick_s == pytest.approx(after("-").delay_s(policy, 0.5))


def test_first_checks_are_anywhere_in_the_interval() -> None:
    assert [first_delay_s(POLICY, chance) for chance in (0.0, 0.5)] == [0.0, 5.0]
