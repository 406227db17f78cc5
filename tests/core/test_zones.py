"""The gateway's own zone first, as far as it can carry what belongs to it."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balancing import p2c
from gateway.core.hashing import rendezvous
from gateway.core.zones import local_share, prefer_zone
from tests.fakes.cart import Cart, key_of


def spread(zones: str) -> list[Cart]:
    """Make one for each letter, which is its zone; "-" is not known."""
    return [
        Cart(name=f"{at}{zone}", zone=None if zone == "-" else zone)
        for at, zone in enumerate(zones)
    ]


@pytest.mark.parametrize(
    ("zones", "share"),
    [
        ("aaabbbccc", 1.0),
        ("aabbbccc", 0.75),
        ("abbbccc", 3 / 7),
        ("bbbccc", 0.0),
        ("aaa", 1.0),
        ("ab", 1.0),
        ("aaaab", 1.0),
        ("abbbb", 0.4),
        ("a---------", 0.1),
        ("---", 0.0),
    ],
)
def test_the_local_share_is_what_keeps_everybody_equally_loaded(zones: str, share: float) -> None:
    assert local_share(spread(zones), "a") == pytest.approx(share)


def test_weights_count_and_where_all_are_zero_they_are_equal() -> None:
    heavy = [Cart(zone="a", weight=3), Cart(zone="b", weight=9)]
    none = [Cart(zone="a", weight=0), *(Cart(zone="b", weight=0) for _ in range(3))]

    assert local_share(heavy, "a") == pytest.approx(0.5)
    assert local_share(none, "a") == pytest.approx(0.5)


zoned = st.lists(
    st.builds(Cart, weight=st.floats(0.1, 9), zone=st.sampled_from(["a", "b", "c", None])),
    min_size=1,
    max_size=12,
)


@given(zoned)
def test_those_here_are_never_loaded_over_the_mean_and_nothing_is_kept_in_vain(
    candidates: list[Cart],
) -> None:
    share = local_share(candidates, "a")

    here = sum(one.weight for one in candidates if one.zone == "a")
    total = sum(one.weight for one in candidates)
    zones = len({one.zone for one in candidates} - {None})
    assert 0 <= share <= 1
    if here:
        assert share / zones / here <= 1 / total * 1.000001  # load for each unit of weight
    assert (share == 0) == (here == 0)


@given(zoned, st.data())
def test_the_local_share_grows_with_the_weight_that_is_here(
    candidates: list[Cart], data: st.DataObject
) -> None:
    candidates.append(Cart(zone="a"))
    before = local_share(candidates, "a")
    grows = data.draw(st.sampled_from([one for one in candidates if one.zone == "a"]))
    grows.weight *= 2

    assert local_share(candidates, "a") >= before


def shares_of_zones(zones: str) -> dict[str | None, float]:
    random = Random(3).random
    pick = prefer_zone(p2c, "a")(spread(zones))
    got = Counter(pick(random, None).zone for _ in range(4_000))
    return {zone: got[zone] / 4_000 for zone in got}


def test_all_requests_stay_while_the_zone_can_carry_them() -> None:
    assert shares_of_zones("aaabbbccc") == {"a": 1.0}


def test_what_is_over_goes_elsewhere_in_proportion() -> None:
    shares = shares_of_zones("aabbbc")  # three zones, a third of the weight here: all of it stays
    assert shares == {"a": 1.0}

    shares = shares_of_zones("abbbcc")

    assert shares["a"] == pytest.approx(0.5, abs=0.03)
    assert shares["b"] == pytest.approx(0.3, abs=0.03)
    assert shares["c"] == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("zones", ["bbcc", "---", "aaa"])
def test_where_there_is_no_choice_of_zones_there_is_no_preference(zones: str) -> None:
    random = Random(1).random
    pick = prefer_zone(p2c, "a")(candidates := spread(zones))

    assert {pick(random, None).name for _ in range(200)} == {one.name for one in candidates}


def test_a_key_is_here_or_elsewhere_by_what_it_is() -> None:
    pick = prefer_zone(rendezvous, "a")(spread("abbbb"))

    ways = [[pick(Random(seed).random, key_of(key)) for key in range(500)] for seed in (1, 2)]

    assert ways[0] == ways[1]
    assert sum(one.zone == "a" for one in ways[0]) / 500 == pytest.approx(0.4, abs=0.06)
