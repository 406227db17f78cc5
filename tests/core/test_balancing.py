"""The Balancers: how even, how fair, and how they draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.balancing import (
    Balancer,
    RoundRobin,
    at_random,
    ewma,
    least_requests,
    p2c,
    weights_of,
)
from tests.fakes.cart import Cart


def sequence(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


def pick(candidates: Sequence[Cart], random: Callable[[], float]) -> Cart:
    return p2c(candidates)(random, None)


MAKERS: dict[str, Callable[[], Balancer[Any]]] = {
    "p2c": lambda: p2c,
    "random": lambda: at_random,
    "least_requests": lambda: least_requests,
    "ewma": lambda: ewma,
    "round_robin": RoundRobin,
}
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

        picked = [pick(candidates, sequence(draw / 12)) for draw in range(12)]

        assert 6 == picked.count(candidates[idle_at])


def test_a_hundred_stay_nearly_as_even_as_if_everybody_was_asked() -> None:
    """One draw alone would leave somebody about 35 above the mean of 100; two leave 2 or 3."""
    random = Random(7).random
    candidates = [Cart() for _ in range(100)]

    for _ in range(10_000):
        pick(candidates, random).in_flight += 1

    assert max(one.in_flight for one in candidates) <= 104


def shares(
    balancer: Balancer[Cart], weights: list[int], *, in_hand: int, requests: int = 5_000
) -> list[float]:
    """Send requests of equal length, `in_hand` at a time; tell which share each one got."""
    random = Random(11).random
    candidates = [Cart(weight=weight, latency_s=0.1) for weight in weights]
    choose = balancer(candidates)
    got: Counter[int] = Counter()
    running: list[Cart] = []
    for _ in range(requests):
        picked = choose(random, None)
        picked.in_flight += 1
        got[id(picked)] += 1
        running.append(picked)
        if len(running) >= in_hand:
            running.pop(0).in_flight -= 1
    return [got[id(one)] / requests for one in candidates]


@pytest.mark.parametrize("in_hand", [1, 2, 5, 20, 100, 1000])
@pytest.mark.parametrize("weights", [[1, 3], [5, 95], [1, 1, 2], [10, 1, 1, 1, 1, 1, 1]])
@pytest.mark.parametrize("name", ["p2c", "random", "round_robin"])
def test_shares_follow_the_weights_at_any_load(name: str, weights: list[int], in_hand: int) -> None:
    """A canary of weight 5 beside 95 gets its twentieth, also from one client at a time."""
    wanted = [weight / sum(weights) for weight in weights]

    assert pytest.approx(wanted, rel=0.25) == shares(MAKERS[name](), weights, in_hand=in_hand)


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
    picked = pick([first, other], sequence(0.0, 0.0))

    assert (other if is_relieved else first) is picked


@pytest.mark.parametrize("name", MAKERS)
def test_where_all_weights_are_zero_each_one_is_picked(name: str) -> None:
    candidates = [Cart(weight=0) for _ in range(3)]
    choose, random = MAKERS[name]()(candidates), Random(1).random

    for _ in range(30):
        choose(random, None).in_flight += 1

    assert all(one.in_flight for one in candidates)
    assert weights_of(candidates) == [1.0, 1.0, 1.0]


same_kind = st.lists(
    st.builds(Cart, st.integers(0, 50), st.floats(0.01, 9), st.just(0.0) | st.floats(0.001, 9)),
    min_size=1,
    max_size=9,
)


@given(st.sampled_from(sorted(MAKERS)), same_kind, st.integers(0, 1000))
def test_failing_over_brings_each_candidate_once_and_all_of_them(
    name: str, candidates: list[Cart], seed: int
) -> None:
    balancer, random = MAKERS[name](), Random(seed).random

    left = list(candidates)
    while left:
        left.remove(balancer(left)(random, None))  # raises when it was there already


@given(same_kind, draws, draws)
def test_any_draw_picks_a_candidate(candidates: list[Cart], first: float, second: float) -> None:
    for balancer in (p2c, at_random, ewma, least_requests):
        assert balancer(candidates)(sequence(first, second), None) in candidates


@pytest.mark.parametrize("seed", range(5))
def test_p2c_spreads_a_heavy_load_over_a_hundred_within_a_fifth(seed: int) -> None:
    """Requests come and go at random: 30 of them at once for each instance."""
    chance = Random(seed)
    candidates = [Cart() for _ in range(100)]
    choose = p2c(candidates)
    running: list[Cart] = []
    worst = 0.0

    for number in range(20_000):
        one = choose(chance.random, None)
        one.in_flight += 1
        running.append(one)
        if len(running) > 3_000:
            at = int(chance.random() * len(running))
            running[at], running[-1] = running[-1], running[at]
            running.pop().in_flight -= 1
        if number > 10_000 and number % 100 == 0:
            worst = max(worst, max(one.in_flight for one in candidates) / 30)

    assert worst <= 1.2


# --- Smooth weighted round robin -----------------------------------------------------------------


def turns(candidates: Sequence[Cart], count: int, balancer: RoundRobin | None = None) -> list[int]:
    choose = (balancer or RoundRobin())(candidates)
    return [candidates.index(choose(lambda: 0.0, None)) for _ in range(count)]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 4))
def test_in_each_cycle_everybody_has_exactly_as_many_turns_as_weight(
    weights: list[int], cycles: int
) -> None:
    candidates = [Cart(weight=weight) for weight in weights]
    cycle = sum(weights)

    order = turns(candidates, cycle * cycles)

    for start in range(0, len(order), cycle):
        got = Counter(order[start : start + cycle])
        assert [got[at] for at in range(len(weights))] == weights


def test_the_turns_of_a_heavy_one_are_spread_over_the_cycle() -> None:
    order = turns([Cart(weight=4), Cart(weight=2), Cart(weight=1)], 7)

    assert order == [0, 0, 1, 0, 0, 1, 2]


def test_one_that_was_out_does_not_catch_up_on_what_it_missed() -> None:
    everybody = [Cart(), Cart(), Cart()]
    balancer = RoundRobin()
    turns(everybody, 3, balancer)
    turns(everybody[:2], 100, balancer)

    order = turns(everybody, 9, balancer)

    assert Counter(order) == {0: 3, 1: 3, 2: 3}


def test_where_each_begins_in_the_line_is_left_to_chance() -> None:
    firsts = set()
    for seed in range(50):
        candidates = [Cart() for _ in range(10)]
        firsts.add(candidates.index(RoundRobin()(candidates)(Random(seed).random, None)))

    assert firsts == set(range(10))


def test_one_that_is_new_comes_somewhere_within_the_next_cycle() -> None:
    everybody = [Cart() for _ in range(10)]
    balancer = RoundRobin()
    turns(everybody, 55, balancer)
    new = Cart()
    choose = balancer([*everybody, new])

    order = [choose(lambda: 0.5, None) for _ in range(11)]

    assert 0 < order.index(new) < 10


# --- Fewest requests -----------------------------------------------------------------------------


def test_the_one_with_the_fewest_requests_for_its_weight_is_picked() -> None:
    candidates = [Cart(3, weight=1), Cart(5, weight=2), Cart(9, weight=3)]

    assert candidates[1] is least_requests(candidates)(sequence(0.5), None)


def test_of_equally_idle_ones_the_weights_decide() -> None:
    candidates = [Cart(weight=1), Cart(weight=3), Cart(in_flight=1)]

    picked = Counter(
        candidates.index(least_requests(candidates)(sequence(at / 100), None)) for at in range(100)
    )

    assert picked == {0: 25, 1: 75}


# --- Peak EWMA -----------------------------------------------------------------------------------


def test_the_one_that_will_answer_sooner_is_picked() -> None:
    slow, fast = Cart(0, latency_s=0.5), Cart(3, latency_s=0.1)

    assert fast is ewma([slow, fast])(sequence(0.0, 0.0), None)
    assert fast is ewma([slow, fast])(sequence(0.9, 0.0), None)
    fast.in_flight = 5
    assert slow is ewma([slow, fast])(sequence(0.0, 0.0), None)


def test_one_that_nothing_is_known_of_gets_one_request_to_learn_from() -> None:
    known, new = Cart(0, latency_s=0.001), Cart()

    assert new is ewma([known, new])(sequence(0.0, 0.0), None)
    new.in_flight = 1
    assert known is ewma([known, new])(sequence(0.9, 0.0), None)


def test_a_heavier_one_waits_less_with_as_many_in_flight() -> None:
    light, heavy = Cart(4, weight=1, latency_s=0.1), Cart(4, weight=3, latency_s=0.1)

    assert heavy is ewma([light, heavy])(sequence(0.0, 0.0), None)
