"""How many of the latest requests went wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors_seen import NO_ERRORS, ErrorShare, ErrorsSeen, sum_of


def test_an_error_is_counted_among_those_that_ended_since() -> None:
    seen = ErrorsSeen()
    seen.note(100.0, 5000)
    seen.note(110.0, 5009)

    assert seen.share(110.0, 5010) == ErrorShare(2, 10)
    assert seen.share(129.0, 5100) == ErrorShare(2, 100)


def test_a_slice_that_is_over_counts_until_the_next_one_is() -> None:
    seen = ErrorsSeen()
    seen.note(100.0, 0)
    seen.note(131.0, 50)

    assert seen.share(140.0, 60) == ErrorShare(2, 60)
    seen.note(170.0, 80)
    assert seen.share(170.0, 81) == ErrorShare(2, 31)


def test_two_slices_without_an_error_leave_none() -> None:
    seen = ErrorsSeen()
    seen.note(100.0, 0)

    assert seen.share(159.9, 9) == ErrorShare(1, 9)
    assert seen.share(160.0, 9) == NO_ERRORS
    seen.note(200.0, 1000)
    assert seen.share(200.0, 1000) == ErrorShare(1, 1)


def test_few_errors_are_not_many_whatever_their_share() -> None:
    assert not ErrorShare(4, 4).is_high
    assert ErrorShare(5, 5).is_high
    assert ErrorShare(5, 50).is_high
    assert not ErrorShare(5, 51).is_high
    assert NO_ERRORS.share == 0.0


def test_windows_add_up() -> None:
    assert sum_of([ErrorShare(1, 2), ErrorShare(3, 4)]) == ErrorShare(4, 6)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50), st.booleans()), max_size=30))
def test_no_more_errors_than_requests_and_only_those_of_the_last_minute(
    history: list[tuple[float, int, bool]],
) -> None:
    seen, now_s, ended = ErrorsSeen(), 0.0, 0
    at: list[float] = []
    for after_s, more, is_error in history:
        now_s, ended = now_s + after_s, ended + more
        if is_error:
            seen.note(now_s, ended)
            at.append(now_s)
        share = seen.share(now_s, ended)

        assert 0 <= share.errors <= share.ended
        assert share.errors <= sum(now_s - one < 120 for one in at)
        assert share.errors >= sum(now_s - one < 30 for one in at)
