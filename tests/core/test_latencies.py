"""Latencies in buckets, and what is told of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.latencies import Latencies


def test_before_the_first_one_there_is_nothing_to_tell() -> None:
    latencies = Latencies()

    assert latencies.quantile_s(0.95) == 0.0
    assert repr(latencies) == "<Latencies 0 counted>"


@given(st.lists(st.floats(2e-4, 60), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_a_quantile_is_right_to_within_a_bucket(samples: list[float], quantile: float) -> None:
    latencies = Latencies()
    for sample in samples:
        latencies.add(sample)

    told_s = latencies.quantile_s(quantile)

    covered = sum(sample <= told_s * (1 + 1e-9) for sample in samples)
    assert covered >= quantile * len(samples) - 1e-6
    longer = [sample for sample in sorted(samples) if sample * 1.2 * (1 + 1e-9) < told_s]
    assert len(longer) <= quantile * len(samples) + 1e-6


def test_the_shortest_and_the_longest_have_a_bucket_too() -> None:
    latencies = Latencies()

    latencies.add(0.0)
    assert latencies.quantile_s(0.5) == pytest.approx(1e-4)
    latencies.add(1e6)
    assert latencies.quantile_s(0.99) > 100


def test_old_ones_fade() -> None:
    latencies = Latencies()
    for _ in range(1900):
        latencies.add(1.0)
    for _ in range(5000):
        latencies.add(0.01)

    assert latencies.quantile_s(0.5) < 0.013
    assert latencies.quantile_s(0.9) < 0.013
    assert latencies.count < 2000
