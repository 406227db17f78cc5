"""How the parts of a policy are put together."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.core.balancing import RequestKey
from gateway.core.policy import BalanceName, BalancingPolicy, HashOn, StickyPolicy
from gateway.core.strategy import balancer_of
from tests.fakes.cart import Cart, key_of


def draw() -> float:
    return 0.0


def three() -> list[Cart]:
    return [
        Cart(name="busy", in_flight=5, zone="a", token=b"t0"),
        Cart(name="idle", zone="a", token=b"t1"),
        Cart(name="far", zone="b", token=b"t2"),
    ]


@pytest.mark.parametrize("balance", get_args(BalanceName))
def test_each_name_stands_for_a_balancer(balance: BalanceName) -> None:
    candidates = three()
    policy = BalancingPolicy(balance=balance, hash_on=HashOn("path"))

    assert balancer_of(policy, None)(candidates)(draw, key_of("x")) in candidates


def test_two_fleets_do_not_share_the_turns_of_a_round_robin() -> None:
    policy = BalancingPolicy(balance="round_robin")
    first, second = balancer_of(policy, None)(three()), balancer_of(policy, None)(three())

    assert ["busy", "busy"] == [pick(draw, None).name for pick in (first, second)]


def test_the_zone_goes_around_the_balancer() -> None:
    pick = balancer_of(BalancingPolicy(), "b")(three())

    assert pick(lambda: 0.0, None).name == "far"


def test_the_cookie_goes_around_the_zone() -> None:
    policy = BalancingPolicy(sticky=StickyPolicy(cookie="route"))
    pick = balancer_of(policy, "b")(three())

    assert pick(draw, RequestKey(None, b"t0", is_secure=False)).name == "busy"
    assert pick(draw, RequestKey(None, b"other", is_secure=False)).name == "far"
