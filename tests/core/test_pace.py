"""Who is too slow to be waited for."""

from __future__ import annotations

from gateway.core.pace import WINDOW_S, Pace


def test_a_window_is_judged_when_it_is_over_and_not_before() -> None:
    pace = Pace(100, 0, 1000.0)

    assert not pace.is_too_slow(0, 1000.0 + WINDOW_S - 0.1)
    assert pace.is_too_slow(99, 1000.0 + WINDOW_S)
    assert repr(pace) == "<Pace 100 bytes until 1120.0>"


def test_each_window_counts_by_itself() -> None:
    """What was fast at first may not rest on that."""
    pace = Pace(100, 50, 0.0)

    assert not pace.is_too_slow(1050, WINDOW_S)
    assert not pace.is_too_slow(1150, 2 * WINDOW_S)
    assert pace.is_too_slow(1249, 3 * WINDOW_S)


def test_a_longer_window_asks_for_as_much_in_each_minute() -> None:
    pace = Pace(100, 0, 0.0, minutes=2)

    assert not pace.is_too_slow(0, 2 * WINDOW_S - 1)
    assert not pace.is_too_slow(200, 2 * WINDOW_S)
    assert pace.is_too_slow(399, 4 * WINDOW_S)
