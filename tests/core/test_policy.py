"""What policies say about themselves."""

from __future__ import annotations

import pytest

from gateway.core.policy import ConcurrencyPolicy, Hedge, PriorityClass, StatusRange


@pytest.mark.parametrize(
    ("policy", "is_limited"),
    [
        (ConcurrencyPolicy(), False),
        (ConcurrencyPolicy(limit=10), True),
        (ConcurrencyPolicy(is_adaptive=True), True),
    ],
)
def test_there_is_a_limit_if_it_is_a_number_or_follows_the_latency(
    policy: ConcurrencyPolicy, *, is_limited: bool
) -> None:
    assert is_limited == policy.is_limited


@pytest.mark.parametrize(
    ("hedge", "text"),
    [
        (Hedge(quantile=0.95), "p95"),
        (Hedge(quantile=0.999), "p99.9"),
        (Hedge(after_s=0.05), "50ms"),
    ],
)
def test_a_hedge_is_written_as_in_the_file(hedge: Hedge, text: str) -> None:
    assert text == str(hedge)


def test_who_matters_more_comes_first() -> None:
    assert sorted(PriorityClass) == [
        PriorityClass.CRITICAL,
        PriorityClass.NORMAL,
        PriorityClass.SHEDDABLE,
    ]


def test_a_range_of_statuses_has_both_ends_in_it() -> None:
    some = StatusRange(200, 299)

    assert [status in some for status in (199, 200, 299, 300)] == [False, True, True, False]
    assert [str(some), str(StatusRange(204, 204))] == ["200-299", "204"]
