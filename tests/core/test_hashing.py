"""Rendezvous hashing: the same everywhere, even, stable when the fleet changes, and bounded."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.hashing import BOUND, LEAST_BOUND, fraction, hash64, mixed, rendezvous
from tests.fakes.cart import Cart, carts, key_of

KEYS = [key_of(number) for number in range(4_000)]
RANDOM = Random(1).random

fleets = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.sampled_from([1, 1, 1, 3]), min_size=2
).map(lambda named: [Cart(name=name, weight=weight) for name, weight in named.items()])


def homes(candidates: list[Cart]) -> list[str]:
    """Tell where each of the keys goes."""
    pick = rendezvous(candidates)
    return [pick(RANDOM, key).name for key in KEYS]


def test_a_key_has_the_same_hash_in_every_process_and_version() -> None:
    assert hash64(b"user-42") == 0xA6EFE67B4DCAA06F
    assert mixed(1, 2) == 0x1E535EEDE31428F0


def test_keys_are_spread_evenly() -> None:
    got = Counter(homes(carts("abcdefghij")))

    assert max(got.values()) <= 1.2 * 400
    assert min(got.values()) >= 0.8 * 400


def test_keys_are_spread_by_weight() -> None:
    got = Counter(homes([Cart(name="light", weight=1), Cart(name="heavy", weight=3)]))

    assert got["heavy"] / 4_000 == pytest.approx(0.75, abs=0.03)


@given(fleets, st.data())
def test_whoever_leaves_moves_only_its_own_keys_and_each_to_its_second(
    candidates: list[Cart], data: st.DataObject
) -> None:
    leaver = data.draw(st.sampled_from(candidates))
    left = [one for one in candidates if one is not leaver]
    before, after = rendezvous(candidates), rendezvous(left)

    for key in KEYS[:50]:
        was, now = before(RANDOM, key), after(RANDOM, key)
        assert now is was or was is leaver


def test_failover_of_a_key_goes_the_same_way_each_time() -> None:
    candidates = carts("abcde")
    for key in KEYS[:50]:
        ways = []
        for _ in range(2):
            left, way = list(candidates), []
            while left:
                way.append(rendezvous(left)(RANDOM, key))
                left.remove(way[-1])
            ways.append([one.name for one in way])
        assert ways[0] == ways[1]


def test_requests_without_a_key_go_to_the_less_loaded_of_two() -> None:
    busy, idle = carts("ab")
    busy.in_flight = 1

    for key in (None, key_of(1)._replace(hash=None)):
        assert rendezvous([busy, idle])(lambda: 0.0, key) is idle


def test_one_busy_key_spills_over_to_its_second_and_then_its_third() -> None:
    candidates = carts("abcdefgh")
    pick, (key, *_) = rendezvous(candidates), KEYS
    order = []
    for _ in range(40):
        one = pick(RANDOM, key)
        one.in_flight += 1
        if one not in order:
            order.append(one)

    assert len(order) > 2
    assert order[0].in_flight >= LEAST_BOUND
    assert order == [
        one
        for one in sorted(candidates, key=lambda one: mixed(key.hash or 0, one.seed), reverse=True)
        if one.in_flight
    ]


@given(fleets, st.lists(st.integers(0, 5), min_size=50, max_size=300))
def test_nobody_gets_more_than_the_bound_whatever_the_keys(
    candidates: list[Cart], keys: list[int]
) -> None:
    pick = rendezvous(candidates)
    for key in keys:
        pick(RANDOM, KEYS[key]).in_flight += 1

    weights = sum(one.weight for one in candidates)
    for one in candidates:
        even = len(keys) * one.weight / weights
        assert one.in_flight <= max(LEAST_BOUND, BOUND * even) + 1


def test_a_fraction_is_even_and_says_nothing_of_the_scores() -> None:
    below = [key for key in KEYS if fraction(key.hash or 0) < 0.25]

    assert len(below) / len(KEYS) == pytest.approx(0.25, abs=0.03)
    pick = rendezvous(carts("abcd"))
    got = Counter(pick(RANDOM, key).name for key in below)
    assert max(got.values()) < 1.25 * len(below) / 4
