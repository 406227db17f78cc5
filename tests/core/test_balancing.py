"""The power of two choices: how even, how fair, and how it draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balancing import pick, pick_by_weight


@dataclass(eq=False)
class Cart:
    """Something that carries load."""

    in_flight: int = 0
    weight: int = 1


def sequence(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


carts = st.builds(Cart, st.integers(0, 50), st.integers(0, 10))
draws = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_the_only_one_is_picked_without_a_draw() -> None:
    only = Cart(in_flight=1000)

    assert only is pick([only], sequence())


def test_the_one_with_fewer_in_flight_is_picked_whichever_is_drawn_first() -> None:
    busy, idle = Cart(in_flight=3), Cart(in_flight=2)

    assert idle is pick([busy, idle], sequence(0.0, 0.0))
    assert idle is pick([busy, idle], sequence(0.9, 0.0))


def test_of_two_equal_ones_the_first_drawn_is_picked_so_that_both_get_the_same() -> None:
    two = [Cart(), Cart()]

    assert two[0] is pick(two, sequence(0.0, 0.0))
    assert two[1] is pick(two, sequence(0.9, 0.0))


@given(st.lists(st.builds(Cart, st.integers(0, 50)), min_size=2, max_size=9), draws, draws)
def test_the_fullest_of_all_is_never_picked_unless_others_are_as_full(
    candidates: list[Cart], first: float, second: float
) -> None:
    picked = pick(candidates, sequence(first, second))

    assert any(picked.in_flight <= one.in_flight for one in candidates if one is not picked)


def test_every_pair_is_drawn_equally_often() -> None:
    for idle_at in range(4):
        candidates = [Cart(in_flight=int(at != idle_at)) for at in range(4)]

        pairs = [(first / 4, second / 3) for first in range(4) for second in range(3)]
        picked = [pick(candidates, sequence(*pair)) for pair in pairs]

        assert 6 == picked.count(candidates[idle_at])


def test_a_hundred_stay_nearly_as_even_as_if_everybody_was_asked() -> None:
    """One draw alone would leave somebody about 35 above the mean of 100; two leave 2 or 3."""
    random = Random(7).random
    candidates = [Cart() for _ in range(100)]

    for _ in range(10_000):
        pick(candidates, random).in_flight += 1

    assert max(one.in_flight for one in candidates) <= 104


def shares(weights: list[int], *, in_hand: int, requests: int = 5_000) -> list[float]:
    """Send requests of equal length, `in_hand` at a time; tell which share each one got."""
    random = Random(11).random
    candidates = [Cart(weight=weight) for weight in weights]
    got: Counter[int] = Counter()
    running: list[Cart] = []
    for _ in range(requests):
        picked = pick_by_weight(candidates, random)
        picked.in_flight += 1
        got[id(picked)] += 1
        running.append(picked)
        if len(running) >= in_hand:
            running.pop(0).in_flight -= 1
    return [got[id(one)] / requests for one in candidates]


@pytest.mark.parametrize("in_hand", [1, 2, 5, 20, 100, 1000])
@pytest.mark.parametrize("weights", [[1, 3], [5, 95], [1, 1, 2], [10, 1, 1, 1, 1, 1, 1]])
def test_shares_follow_the_weights_at_any_load(weights: list[int], in_hand: int) -> None:
    """A canary of weight 5 beside 95 gets its twentieth, also from one client at a time."""
    wanted = [weight / sum(weights) for weight in weights]

    assert pytest.approx(wanted, rel=0.25) == shares(weights, in_hand=in_hand)


@pytest.mark.parametrize(
    ("first", "other", "is_relieved"),
    [
        (Cart(0, weight=1), Cart(0, weight=9), False),
        (Cart(1, weight=1), Cart(8, weight=9), True),
        (Cart(1, weight=1), Cart(9, weight=9), False),
        (Cart(9, weight=9), Cart(0, weight=1), True),
        (Cart(8, weight=9), Cart(0, weight=1), False),
    ],
    ids=["idle", "just-fuller", "as-full", "heavy-just-fuller", "heavy-has-room"],
)
def test_the_first_drawn_is_relieved_if_the_other_would_be_no_fuller_with_it(
    first: Cart, other: Cart, *, is_relieved: bool
) -> None:
    picked = pick_by_weight([first, other], sequence(0.0, 0.0))

    assert (other if is_relieved else first) is picked


def test_weight_zero_gets_nothing_while_anything_else_can() -> None:
    none, some = Cart(weight=0), Cart(in_flight=1000, weight=1)

    picked = {id(pick_by_weight([none, some], sequence(at / 10, 0.0))) for at in range(10)}

    assert {id(some)} == picked


def test_where_all_weights_are_zero_each_one_may_be_picked() -> None:
    candidates = [Cart(weight=0), Cart(weight=0), Cart(weight=0)]

    picked = {id(pick_by_weight(candidates, sequence(at))) for at in (0.0, 0.4, 0.9)}

    assert {id(one) for one in candidates} == picked


@given(st.lists(carts, min_size=1, max_size=9), draws, draws)
def test_some_candidate_is_always_picked_and_never_one_of_weight_zero_in_vain(
    candidates: list[Cart], first: float, second: float
) -> None:
    picked = pick_by_weight(candidates, sequence(first, second))

    assert picked in candidates
    assert picked.weight or not any(one.weight for one in candidates)
