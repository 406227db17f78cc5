"""How long a failover waits."""

from __future__ import annotations

import pytest

from gateway.core.backoff import backoff_s


def test_the_first_failover_does_not_wait() -> None:
    assert backoff_s(1, first_s=0.025, longest_s=0.25, chance=0.999) == 0


def test_each_later_one_waits_up_to_twice_as_long_and_never_longer_than_the_longest() -> None:
    longest = [backoff_s(n, first_s=0.025, longest_s=0.25, chance=1.0) for n in range(2, 9)]

    assert longest == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.25, 0.25, 0.25])


def test_chance_draws_from_nothing_to_the_longest() -> None:
    """Full jitter: those that failed together do not come again together."""
    waits = [backoff_s(4, first_s=0.1, longest_s=10, chance=chance / 10) for chance in range(10)]

    assert waits == pytest.approx([0.04 * chance for chance in range(10)])


def test_any_number_of_failovers_breaks_no_arithmetic() -> None:
    assert backoff_s(5000, first_s=0.025, longest_s=0.25, chance=0.5) == 0.125
