"""The Members of one service, and the choice among them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from gateway.core.balancing import RequestKey
from gateway.core.breaker import BreakerState
from gateway.core.fleet import Fleet, Member
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import (
    BalancingPolicy,
    BreakerPolicy,
    HashOn,
    StickyPolicy,
    WhenAllOpen,
)
from tests.fakes.cart import key_of

NOW_S = 1000.0
POLICY = BreakerPolicy(consecutive_failures=1, open_for_s=10.0)
STICKY = BalancingPolicy(sticky=StickyPolicy(cookie="route"))


def instance(
    name: str,
    *,
    status: Status = Status.PASSING,
    port: int = 80,
    weight: int = 1,
    zone: str | None = None,
) -> Instance:
    return Instance(
        key=f"{name}@10.0.0.1:{port}",
        id=name,
        host="10.0.0.1",
        port=port,
        status=status,
        weight=weight,
        zone=zone,
    )


def snapshot(*instances: Instance) -> Snapshot:
    return Snapshot(service="users", instances=instances, source="consul", index=1)


def fleet_of(*instances: Instance) -> Fleet[str]:
    fleet = Fleet("users", lambda one: f"pool of {one.key}", breaker=POLICY)
    fleet.apply(snapshot(*instances))
    return fleet


def member(fleet: Fleet[str], name: str) -> Member[str]:
    (found,) = [one for one in fleet.members.values() if one.instance.id == name]
    return found


def open_breaker(of: Member[str]) -> None:
    permit = of.breaker.admit(NOW_S)
    assert permit is not None
    assert of.breaker.failed(permit, NOW_S, why="connect_failed", chance=0.5, was_reached=False)


def run_through(fleet: Fleet[str], *, now_s: float = NOW_S, seed: int = 3) -> list[str]:
    """Fail over until nobody is left; tell who was tried, in order."""
    random = Random(seed).random
    tried: list[Member[str]] = []
    while (choice := fleet.choose(tried, now_s, random)) is not None:
        tried.append(choice[0])
    return [one.instance.id for one in tried]


# --- Following Snapshots -------------------------------------------------------------------------


def test_before_the_first_snapshot_there_is_nobody_and_nothing_is_known() -> None:
    fleet = Fleet("users", str, breaker=POLICY)

    assert fleet.snapshot is None
    assert fleet.size == 0
    assert fleet.choose((), NOW_S, Random(0).random) is None
    assert fleet.retry_at_s(NOW_S) is None


def test_what_was_learned_about_an_instance_survives_snapshots() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    known = member(fleet, "a")
    known.in_flight = 7
    open_breaker(known)

    gone = fleet.apply(snapshot(instance("a"), instance("c")))

    assert known is member(fleet, "a")
    assert [one.instance.id for one in gone] == ["b"]
    assert known.in_flight == 7
    assert BreakerState.OPEN is known.breaker.state(NOW_S)


def test_new_facts_about_a_known_instance_are_taken_over() -> None:
    fleet = fleet_of(instance("a", weight=1))
    known = member(fleet, "a")

    changed = instance("a", weight=5, status=Status.WARNING)
    fleet.apply(snapshot(changed))

    assert known is member(fleet, "a")
    assert (changed, 5) == (known.instance, known.weight)


def test_an_instance_with_another_address_is_another_member() -> None:
    fleet = fleet_of(instance("a", port=80))
    before = member(fleet, "a")
    open_breaker(before)

    gone = fleet.apply(snapshot(instance("a", port=81)))

    after = member(fleet, "a")
    assert [before] == gone
    assert before.is_gone
    assert not after.is_gone
    assert BreakerState.CLOSED is after.breaker.state(NOW_S)
    assert after.pool == "pool of a@10.0.0.1:81"


def test_state_survives_a_time_in_which_the_instance_may_not_have_traffic() -> None:
    """A deploy takes an instance into maintenance and back; its connections are still good."""
    fleet = fleet_of(instance("a"))
    known = member(fleet, "a")

    for status in (Status.MAINTENANCE, Status.CRITICAL):
        assert fleet.apply(snapshot(instance("a", status=status))) == []
        assert fleet.size == 0
    fleet.apply(snapshot(instance("a")))

    assert known is member(fleet, "a")
    assert fleet.size == 1


def test_an_instance_that_went_and_came_back_starts_anew() -> None:
    fleet = fleet_of(instance("a"))
    before = member(fleet, "a")

    fleet.apply(snapshot())
    fleet.apply(snapshot(instance("a")))

    assert before.is_gone
    assert before is not member(fleet, "a")


def test_the_snapshot_that_was_applied_last_can_be_read() -> None:
    fleet = fleet_of(instance("a"))
    newest = snapshot(instance("b"))

    fleet.apply(newest)

    assert newest is fleet.snapshot


def test_another_breaker_policy_reaches_old_and_new_members() -> None:
    fleet = fleet_of(instance("a"))

    fleet.adopt(dataclasses.replace(POLICY, open_for_s=100.0))
    fleet.apply(snapshot(instance("a"), instance("b")))

    for name in ("a", "b"):
        open_breaker(member(fleet, name))
        assert pytest.approx(NOW_S + 95.0) == member(fleet, name).breaker.retry_at_s(NOW_S)


# --- Choosing ------------------------------------------------------------------------------------


def test_failover_tries_each_one_once_and_then_nobody() -> None:
    fleet = fleet_of(*(instance(name) for name in "abcde"))

    assert sorted("abcde") == sorted(run_through(fleet))


def test_those_with_warnings_come_only_after_all_that_pass() -> None:
    fleet = fleet_of(
        instance("sick", status=Status.CRITICAL),
        instance("worn1", status=Status.WARNING),
        instance("good1"),
        instance("resting", status=Status.MAINTENANCE),
        instance("worn2", status=Status.WARNING),
        instance("good2"),
    )

    for seed in range(20):
        tried = run_through(fleet, seed=seed)
        assert sorted(tried[:2]) == ["good1", "good2"]
        assert sorted(tried[2:]) == ["worn1", "worn2"]


def test_a_warning_one_serves_while_the_breakers_of_all_that_pass_are_open() -> None:
    fleet = fleet_of(instance("good"), instance("worn", status=Status.WARNING))
    open_breaker(member(fleet, "good"))

    assert run_through(fleet) == ["worn"]


def test_an_open_breaker_keeps_its_member_out_and_the_others_in() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c"))
    open_breaker(member(fleet, "b"))

    for seed in range(20):
        assert sorted(run_through(fleet, seed=seed)) == ["a", "c"]


def test_nobody_is_chosen_while_every_breaker_is_open() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    for one in fleet.members.values():
        open_breaker(one)

    assert run_through(fleet) == []


def test_a_half_open_member_is_chosen_for_one_trial_only() -> None:
    fleet = fleet_of(instance("a"))
    open_breaker(member(fleet, "a"))
    trial_at_s = fleet.retry_at_s(NOW_S)
    assert trial_at_s is not None

    first = fleet.choose((), trial_at_s, Random(0).random)
    second = fleet.choose((), trial_at_s, Random(0).random)

    assert first is not None
    assert first[0].breaker.is_trial(first[1])
    assert second is None


def test_choosing_takes_no_trial_that_it_does_not_hand_out() -> None:
    """A Permit that is drawn and dropped would keep the instance out for ever."""
    fleet = fleet_of(*(instance(name) for name in "abcd"))
    for name in "abc":
        open_breaker(member(fleet, name))
    random = Random(5).random

    tried: list[Member[str]] = []
    while (choice := fleet.choose(tried, NOW_S + 10, random)) is not None:
        tried.append(choice[0])

    assert [one.breaker.has_trial_out for one in fleet.members.values()] == [True] * 3 + [False]
    assert len(tried) == 4


def test_when_all_are_open_one_trial_a_second_goes_round() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c", status=Status.WARNING))
    for one in fleet.members.values():
        open_breaker(one)

    tried = []
    for tenth in range(31):
        now_s = NOW_S + tenth / 10
        if (choice := fleet.choose((), now_s, Random(1).random)) is not None:
            tried.append((tenth, choice[0].instance.id))
            choice[0].breaker.failed(choice[1], now_s, why="head_timeout", chance=0.5)

    assert tried == [(10, "a"), (20, "b"), (30, "c")]


def test_a_request_whose_trial_failed_is_not_given_another_one() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    for one in fleet.members.values():
        open_breaker(one)

    assert run_through(fleet, now_s=NOW_S + 1) == ["a"]


def test_route_anyway_goes_on_as_if_there_were_no_breakers() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c", status=Status.WARNING))
    fleet.adopt(dataclasses.replace(POLICY, when_all_open=WhenAllOpen.ROUTE_ANYWAY))
    for one in fleet.members.values():
        open_breaker(one)

    for seed in range(10):
        tried = run_through(fleet, seed=seed)
        assert (sorted(tried[:2]), tried[2:]) == (["a", "b"], ["c"])


def test_what_went_on_anyway_closes_the_breaker_when_it_succeeds() -> None:
    fleet = fleet_of(instance("a"))
    fleet.adopt(dataclasses.replace(POLICY, when_all_open=WhenAllOpen.ROUTE_ANYWAY))
    open_breaker(member(fleet, "a"))

    choice = fleet.choose((), NOW_S, Random(0).random)

    assert choice is not None
    assert choice[0].breaker.succeeded(choice[1], NOW_S)
    assert not fleet.breakers.is_outage


def test_a_hundred_members_get_nearly_the_same_load() -> None:
    fleet = fleet_of(*(instance(f"i{number:03}") for number in range(100)))
    random = Random(1).random

    for _ in range(5_000):
        choice = fleet.choose((), NOW_S, random)
        assert choice is not None
        choice[0].in_flight += 1

    loads = [one.in_flight for one in fleet.members.values()]
    assert max(loads) <= 1.08 * 50
    assert min(loads) >= 0.85 * 50


@pytest.mark.parametrize("tried", [0, 1])
def test_weights_hold_for_the_first_choice_and_for_failover(tried: int) -> None:
    fleet = fleet_of(instance("gone"), instance("light"), instance("heavy", weight=9))
    failed = [member(fleet, "gone")][:tried]
    random = Random(2).random

    chosen: Counter[str] = Counter()
    for _ in range(2_000):
        choice = fleet.choose(failed, NOW_S, random)
        assert choice is not None
        chosen[choice[0].instance.id] += 1

    assert pytest.approx(9, rel=0.25) == chosen["heavy"] / chosen["light"]
    assert (chosen["gone"] == 0) == bool(tried)


def test_weights_of_instances_without_traffic_do_not_matter() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c", weight=0, status=Status.CRITICAL))
    member(fleet, "a").in_flight = 1

    for seed in range(20):
        assert run_through(fleet, seed=seed)[0] == "b"


# --- Policies ------------------------------------------------------------------------------------


def balanced(policy: BalancingPolicy, *instances: Instance, zone: str | None = None) -> Fleet[str]:
    fleet = Fleet("users", str, breaker=POLICY)
    fleet.balance_by(policy, zone)
    fleet.apply(snapshot(*instances), NOW_S)
    return fleet


def chosen(
    fleet: Fleet[str], count: int, *, now_s: float = NOW_S, key: RequestKey | None = None
) -> Counter[str]:
    """Choose so many times, as if each request ended at once; tell who was chosen how often."""
    random = Random(4).random
    choices = (fleet.choose((), now_s, random, key) for _ in range(count))
    return Counter(choice[0].instance.id for choice in choices if choice is not None)


def weights(fleet: Fleet[str]) -> dict[str, float]:
    return {one.instance.id: round(one.weight, 3) for one in fleet.members.values()}


def test_another_policy_holds_from_the_next_choice_on() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c"))

    fleet.balance_by(BalancingPolicy(balance="round_robin"))

    assert chosen(fleet, 9) == {"a": 3, "b": 3, "c": 3}


def test_the_same_policy_again_changes_nothing_and_another_one_begins_its_turns_anew() -> None:
    """A configuration is often loaded again; whoever came meanwhile has nothing to catch up on."""
    policy = BalancingPolicy(balance="round_robin")
    fleet = balanced(policy, instance("a"), instance("b"))
    chosen(fleet, 100)

    fleet.balance_by(policy)
    fleet.apply(snapshot(instance("a"), instance("b"), instance("c")))
    again = chosen(fleet, 9)
    fleet.balance_by(dataclasses.replace(policy, panic=True))
    other = chosen(fleet, 9)

    assert max(again.values()) <= 4
    assert other == {"a": 3, "b": 3, "c": 3}


def test_only_a_policy_that_needs_a_key_has_an_affinity() -> None:
    fleet = fleet_of(instance("a"))
    assert fleet.affinity is None

    fleet.balance_by(BalancingPolicy(balance="hash", hash_on=HashOn("path")))
    assert fleet.affinity is not None
    fleet.balance_by(BalancingPolicy())
    assert fleet.affinity is None


def test_a_hashed_key_goes_to_one_and_fails_over_to_the_same_second() -> None:
    policy = BalancingPolicy(balance="hash", hash_on=HashOn("path"))
    fleet = balanced(policy, *(instance(name) for name in "abcde"))
    key = key_of("user-42")
    ((first, count),) = chosen(fleet, 20, key=key).items()
    assert count == 20

    open_breaker(member(fleet, first))
    ((second, _),) = chosen(fleet, 20, key=key).items()
    fleet.apply(snapshot(*(instance(name) for name in "abcde" if name != first)), NOW_S)

    assert first != second
    assert chosen(fleet, 20, key=key) == {second: 20}


def test_a_sticky_client_comes_back_until_the_breaker_of_its_instance_opens() -> None:
    fleet = balanced(STICKY, *(instance(name) for name in "abc"))
    key = RequestKey(None, member(fleet, "b").token, is_secure=False)
    assert chosen(fleet, 20, key=key) == {"b": 20}

    open_breaker(member(fleet, "b"))

    assert chosen(fleet, 50, key=key).keys() == {"a", "c"}


def test_a_tier_goes_before_a_cookie() -> None:
    fleet = balanced(STICKY, instance("a"), instance("worn", status=Status.WARNING))

    key = RequestKey(None, member(fleet, "worn").token, is_secure=False)

    assert chosen(fleet, 9, key=key) == {"a": 9}


def test_tokens_follow_the_policy_and_new_instances_have_theirs() -> None:
    fleet = fleet_of(instance("a"))
    assert member(fleet, "a").token == b""

    fleet.balance_by(STICKY)
    fleet.apply(snapshot(instance("a"), instance("b")))

    assert len({member(fleet, name).token for name in "ab"} - {b""}) == 2


def test_with_panic_a_critical_one_is_better_than_nobody() -> None:
    sick = instance("sick", status=Status.CRITICAL)
    resting = instance("resting", status=Status.MAINTENANCE)
    fleet = balanced(BalancingPolicy(panic=True), instance("good"), sick, resting)
    assert chosen(fleet, 9) == {"good": 9}

    open_breaker(member(fleet, "good"))

    assert chosen(fleet, 9) == {"sick": 9}
    assert run_through(fleet) == ["sick"]


# --- Slow start ----------------------------------------------------------------------------------

SLOWLY = BalancingPolicy(slow_start_s=30.0)


def test_one_that_comes_to_others_starts_slowly() -> None:
    fleet = balanced(SLOWLY, instance("a"), instance("b"))

    fleet.apply(snapshot(instance("a"), instance("b"), instance("new")), NOW_S + 100)

    assert weights(fleet) == {"a": 1.0, "b": 1.0, "new": 0.1}
    assert chosen(fleet, 2_100)["new"] == pytest.approx(100, abs=40)
    fleet.refresh(NOW_S + 115)
    assert weights(fleet)["new"] == 0.5
    fleet.refresh(NOW_S + 131)
    assert weights(fleet)["new"] == 1.0


def test_one_that_comes_back_into_traffic_starts_slowly() -> None:
    """A restart at the same address shows as critical for a while."""
    fleet = balanced(SLOWLY, instance("a"), instance("b"))

    fleet.apply(snapshot(instance("a"), instance("b", status=Status.CRITICAL)), NOW_S + 50)
    fleet.apply(snapshot(instance("a"), instance("b")), NOW_S + 60)

    assert weights(fleet) == {"a": 1.0, "b": 0.1}


def test_one_whose_breaker_closed_again_starts_slowly() -> None:
    fleet = balanced(SLOWLY, instance("a"), instance("b"))

    fleet.recovered(member(fleet, "b"), NOW_S + 50)

    assert weights(fleet) == {"a": 1.0, "b": 0.1}
    fleet.refresh(NOW_S + 81)
    assert weights(fleet) == {"a": 1.0, "b": 1.0}


def test_without_slow_start_nobody_does() -> None:
    fleet = balanced(BalancingPolicy(), instance("a"), instance("b"))
    fleet.recovered(member(fleet, "b"), NOW_S)
    fleet.apply(snapshot(instance("a"), instance("b"), instance("new")), NOW_S)

    assert weights(fleet) == {"a": 1.0, "b": 1.0, "new": 1.0}


def test_at_the_start_of_the_gateway_nobody_starts_slowly() -> None:
    fleet = Fleet("users", str, breaker=POLICY)
    fleet.balance_by(SLOWLY)
    kept = dataclasses.replace(snapshot(instance("a")), source="disk")

    fleet.apply(kept, NOW_S)
    fleet.apply(snapshot(instance("a"), instance("b")), NOW_S + 1)

    assert weights(fleet) == {"a": 1.0, "b": 1.0}


def test_a_whole_fleet_that_is_new_shares_evenly() -> None:
    fleet = balanced(SLOWLY, instance("a"), instance("b"))

    fleet.apply(snapshot(instance("c"), instance("d")), NOW_S + 50)

    assert len(set(weights(fleet).values())) == 1
    assert min(chosen(fleet, 1_000).values()) > 400


def test_an_established_one_does_not_carry_everything_for_many_that_are_new() -> None:
    fleet = balanced(SLOWLY, instance("old"))

    news = [instance(f"new{number}") for number in range(9)]
    fleet.apply(snapshot(instance("old"), *news), NOW_S + 50)

    assert chosen(fleet, 2_000)["old"] / 2_000 == pytest.approx(0.2, abs=0.04)


# --- Zones ---------------------------------------------------------------------------------------


def test_those_in_the_zone_of_the_gateway_come_first_and_for_failover_too() -> None:
    fleet = balanced(
        BalancingPolicy(),
        *(instance(name, zone=name[0]) for name in ("a1", "a2", "b1", "b2")),
        zone="a",
    )

    assert chosen(fleet, 100).keys() == {"a1", "a2"}
    tried = run_through(fleet)
    assert sorted(tried) == ["a1", "a2", "b1", "b2"]


def test_what_the_zone_cannot_carry_goes_elsewhere_within_a_second_of_a_breaker() -> None:
    fleet = balanced(
        BalancingPolicy(),
        *(instance(name, zone=name[0]) for name in ("a1", "a2", "b1", "b2")),
        zone="a",
    )
    open_breaker(member(fleet, "a1"))

    fleet.refresh(NOW_S + 1)
    one_left = chosen(fleet, 3_000, now_s=NOW_S + 1)
    open_breaker(member(fleet, "a2"))
    nobody_left = chosen(fleet, 100, now_s=NOW_S + 1)

    assert one_left["a2"] / 3_000 == pytest.approx(2 / 3, abs=0.04)
    assert one_left["a1"] == 0
    assert nobody_left.keys() == {"b1", "b2"}


def test_where_no_breaker_lets_anybody_through_everybody_is_looked_at() -> None:
    fleet = balanced(BalancingPolicy(), instance("a", zone="a"), instance("b"), zone="a")
    for one in fleet.members.values():
        open_breaker(one)

    fleet.refresh(NOW_S)

    assert run_through(fleet) == []
    assert run_through(fleet, now_s=NOW_S + 1) == ["a"]
    assert run_through(fleet, now_s=NOW_S + 2) == ["b"]


# --- Latency -------------------------------------------------------------------------------------


def test_a_slow_answer_counts_at_once_and_fast_ones_by_and_by() -> None:
    one = member(fleet_of(instance("a")), "a")
    assert one.latency_s == 0.0

    one.observe(0.2, NOW_S)
    one.observe(1.0, NOW_S)
    assert one.latency_s == 1.0
    one.observe(0.2, NOW_S + 10)
    assert one.latency_s == pytest.approx(0.6)
    one.observe(0.2, NOW_S + 10)
    assert one.latency_s == pytest.approx(0.6)


def test_an_answer_that_took_no_time_by_the_clock_is_not_taken_for_none() -> None:
    one = member(fleet_of(instance("a")), "a")

    one.observe(0.0, NOW_S)

    assert one.latency_s > 0


def test_a_failure_that_came_fast_is_no_fast_answer_and_the_last_few_are_kept() -> None:
    one = member(fleet_of(instance("a")), "a")
    one.observe(0.5, NOW_S)

    for number in range(7):
        one.note_failure("connect_failed", f"refused {number}", 0.001, NOW_S + number)

    assert one.latency_s == 0.5
    assert [kept.detail for kept in one.failures] == [f"refused {at}" for at in range(2, 7)]


def test_one_that_is_not_asked_is_forgotten_by_and_by_so_that_it_is_asked_again() -> None:
    fleet = balanced(BalancingPolicy(balance="ewma"), instance("slow"), instance("busy"))
    slow, busy = member(fleet, "slow"), member(fleet, "busy")
    for one in (slow, busy):
        one.observe(1.0, NOW_S)
    busy.in_flight = 1

    fleet.refresh(NOW_S + 0.5)
    assert slow.latency_s == 1.0
    fleet.refresh(NOW_S + 10)

    assert slow.latency_s == pytest.approx(0.5)
    assert busy.latency_s == 1.0


# --- Reaching them in another way ----------------------------------------------------------------


def test_reaching_instances_in_another_way_replaces_their_members_and_nothing_else() -> None:
    fleet = fleet_of(instance("a"), instance("b", weight=3))
    open_breaker(member(fleet, "a"))
    before = list(fleet.members.values())

    replaced = fleet.reach_by(lambda one: f"other pool of {one.key}")

    assert before == replaced
    assert [True, True] == [one.is_gone for one in replaced]
    assert ["a", "b"] == [one.instance.id for one in fleet.members.values()]
    assert ["other pool of a@10.0.0.1:80", "other pool of b@10.0.0.1:80"] == [
        one.pool for one in fleet.members.values()
    ]
    assert [False, False] == [one.is_gone for one in fleet.members.values()]
    assert BreakerState.CLOSED is member(fleet, "a").breaker.state(NOW_S)
    assert {"a", "b"} == set(run_through(fleet))


def test_a_fleet_that_knows_nobody_yet_reaches_the_first_ones_in_the_other_way() -> None:
    fleet = Fleet("users", lambda one: f"pool of {one.key}", breaker=POLICY)

    replaced = fleet.reach_by(lambda one: f"other pool of {one.key}")
    fleet.apply(snapshot(instance("a")))

    assert [] == replaced
    assert "other pool of a@10.0.0.1:80" == member(fleet, "a").pool


def test_an_instance_that_changes_its_scheme_is_another_one() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    before, other = member(fleet, "a"), member(fleet, "b")

    gone = fleet.apply(snapshot(dataclasses.replace(instance("a"), scheme="https"), instance("b")))

    assert [before] == gone
    assert before.is_gone
    assert before is not member(fleet, "a")
    assert other is member(fleet, "b")


# --- Telling -------------------------------------------------------------------------------------


def test_it_tells_when_the_first_breaker_lets_somebody_try() -> None:
    fleet = fleet_of(
        instance("a"), instance("b", status=Status.WARNING), instance("c", status=Status.CRITICAL)
    )
    open_breaker(member(fleet, "a"))
    assert fleet.retry_at_s(NOW_S) == NOW_S

    open_breaker(member(fleet, "b"))

    assert pytest.approx(NOW_S + 1) == fleet.retry_at_s(NOW_S)


def test_a_fleet_and_its_members_show_how_they_are() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c", status=Status.WARNING))
    (gone,) = fleet.apply(snapshot(instance("a"), instance("c", status=Status.WARNING)))

    assert repr(fleet) == "<Fleet users, [1, 1]>"
    assert repr(member(fleet, "a")) == (
        "<Member a@10.0.0.1:80, 0 in flight, <Breaker closed, 0 in a row, epoch 0>>"
    )
    assert ", gone, " in repr(gone)


def test_it_says_in_words_why_nobody_may_have_traffic() -> None:
    assert fleet_of().absence() == "service 'users' has no instance registered"


@pytest.mark.parametrize(
    "others",
    [
        {"status": Status.WARNING},
        {"weight": 0},
        {"zone": "b"},
    ],
    ids=["tier", "no weight", "zone"],
)
@pytest.mark.parametrize("count", [2, 3])
def test_those_that_come_first_give_way_once_all_of_them_fail(
    others: dict[str, Any], count: int
) -> None:
    """Though most of the service is shut out then: nobody else gets traffic before."""
    bad = [instance(f"bad-{at}", zone="a") for at in range(count)]
    fleet = Fleet("users", lambda one: one.id, breaker=BreakerPolicy())
    fleet.balance_by(BalancingPolicy(), zone="a")
    fleet.apply(snapshot(*bad, instance("well", **others)))
    random, answered = Random(7), []

    for request in range(400):
        now_s = NOW_S + request * 0.01
        if request % 100 == 0:
            fleet.refresh(now_s)
        choice = fleet.choose([], now_s, random.random)
        assert choice is not None
        one, permit = choice
        is_well = one.instance.id == "well"
        answered.append(is_well)
        if is_well:
            one.breaker.succeeded(permit, now_s)
        else:
            one.breaker.failed(permit, now_s, why="retriable_status", chance=0.5)

    assert answered.count(False) < 50
    assert all(answered[-200:])


def test_one_that_rests_is_woken_when_the_others_are_gone_from_the_registry() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    assert member(fleet, "a").breaker.rest(NOW_S, for_s=9.0)

    fleet.apply(snapshot(instance("a")), NOW_S)

    assert not fleet.breakers.is_outage
    assert fleet.choose([], NOW_S, Random(1).random) is not None
    assert BreakerState.CLOSED is member(fleet, "a").breaker.state(NOW_S)


def test_a_trial_is_for_one_that_has_room() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    fleet.limit(most_requests=1, most_connections=inf)
    for name in "ab":
        open_breaker(member(fleet, name))
    member(fleet, "a").in_flight = 1

    choice = fleet.choose([], NOW_S + 1, Random(1).random)

    assert choice is not None
    assert choice[0] is member(fleet, "b")
    assert fleet.choose([], NOW_S + 1, Random(1).random) is None


@pytest.mark.parametrize(
    ("in_flight", "tunnels", "has_room"),
    [(1, 0, True), (2, 0, False), (3, 2, True), (3, 1, False), (4, 4, False)],
)
def test_a_tunnel_takes_a_connection_and_not_the_place_of_a_request(
    in_flight: int, tunnels: int, *, has_room: bool
) -> None:
    fleet = fleet_of(instance("a"))
    fleet.limit(most_requests=2, most_connections=4)
    one = member(fleet, "a")
    one.in_flight, one.tunnels = in_flight, tunnels

    assert fleet.has_room(one) is has_room
    assert fleet.room == 2


def test_one_that_has_only_failed_is_not_the_fastest() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    fleet.balance_by(BalancingPolicy(balance="ewma"))
    member(fleet, "a").note_failure("retriable_status", "503", 0.001, NOW_S)
    member(fleet, "b").observe(0.02, NOW_S)

    random = Random(1)
    chosen = [fleet.choose([], NOW_S, random.random) for _ in range(100)]

    assert [one[0].instance.id for one in chosen if one] == ["b"] * 100


def test_members_can_be_made_ahead_a_few_at_a_time_and_are_taken_when_they_are_applied() -> None:
    made: list[str] = []

    def make_pool(instance: Instance) -> str:
        made.append(instance.id)
        return instance.id

    fleet: Fleet[str] = Fleet("web", make_pool, breaker=BreakerPolicy())
    instances = tuple(
        Instance(key=f"k{number:03}", id=f"k{number:03}", host="10.0.0.1", port=80)
        for number in range(100)
    )
    fleet.apply(Snapshot(service="web", instances=instances[:1], source="consul"))

    steps = sum(1 for _ in fleet.prepare(instances))
    assert steps == 3
    assert len(made) == 100
    assert len(fleet.members) == 1

    fleet.apply(Snapshot(service="web", instances=instances, source="consul"))
    assert len(made) == 100
    assert [member.pool for member in fleet.members.values()] == made


def test_a_member_made_ahead_by_another_scheme_or_policy_is_not_taken() -> None:
    made: list[Instance] = []

    def make_pool(instance: Instance) -> str:
        made.append(instance)
        return instance.scheme

    fleet: Fleet[str] = Fleet("web", make_pool, breaker=BreakerPolicy())
    plain = Instance(key="a", id="a", host="10.0.0.1", port=80)
    secured = replace(plain, scheme="https")

    list(fleet.prepare([plain]))
    fleet.apply(Snapshot(service="web", instances=(secured,), source="consul"))
    assert fleet.members["a"].pool == "https"

    list(fleet.prepare([plain]))
    fleet.adopt(BreakerPolicy(max_open_ratio=1.0))
    fleet.apply(Snapshot(service="web", instances=(plain,), source="consul"))
    assert made == [plain, secured, plain, plain]


def test_a_5xx_response_is_among_the_errors_and_fails_nobody() -> None:
    fleet = fleet_of(instance("a"))
    one = member(fleet, "a")

    one.note_server_error(500, NOW_S)

    assert [seen.failure for seen in one.failures] == ["server_error"]
    assert one.error_share(NOW_S).errors == 1
    assert one.breaker.failures_in_a_row == 0
