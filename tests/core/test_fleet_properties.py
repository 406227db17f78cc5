"""Laws of the Fleet, for any sequence of Snapshots and any state of the Breakers."""

from __future__ import annotations

from random import Random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet import Fleet, Member
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import (
    BalanceName,
    BalancingPolicy,
    BreakerPolicy,
    HashOn,
    StickyPolicy,
)
from tests.fakes.cart import key_of

NOW_S = 1000.0
POLICY = BreakerPolicy(consecutive_failures=1)
RANK = {Status.PASSING: 0, Status.WARNING: 1}

instances = st.builds(
    lambda name, port, status, weight, zone: Instance(
        key=f"{name}@h:{port}",
        id=name,
        host="h",
        port=port,
        status=status,
        weight=weight,
        zone=zone,
    ),
    st.sampled_from("abcdef"),
    st.integers(1, 2),
    st.sampled_from(Status),
    st.sampled_from([0, 1, 1, 1, 7]),
    st.sampled_from([None, "x", "y"]),
)
policies = st.builds(
    BalancingPolicy,
    balance=st.sampled_from(get_args(BalanceName)),
    hash_on=st.just(HashOn("path")),
    sticky=st.sampled_from([StickyPolicy(), StickyPolicy(cookie="route")]),
    slow_start_s=st.sampled_from([None, 30.0]),
)
KEY = key_of("/")
snapshots = st.lists(instances, max_size=9, unique_by=lambda one: one.key).map(
    lambda listed: Snapshot(
        service="s", instances=tuple(sorted(listed, key=lambda one: one.key)), source="test"
    )
)


@given(st.lists(snapshots, min_size=1, max_size=4))
def test_members_follow_the_snapshots_and_keep_their_state(history: list[Snapshot]) -> None:
    made: list[str] = []

    def make_pool(instance: Instance) -> int:
        made.append(instance.key)
        return len(made)

    fleet = Fleet("s", make_pool, breaker=POLICY)
    for snapshot in history:
        before = dict(fleet.members)
        made.clear()
        gone = fleet.apply(snapshot)

        listed = {one.key: one for one in snapshot.instances}
        assert listed == {key: member.instance for key, member in fleet.members.items()}
        assert sorted(made) == sorted(listed.keys() - before.keys())
        assert all(fleet.members[key] is before[key] for key in listed.keys() & before.keys())
        assert {m.instance.key for m in gone} == before.keys() - listed.keys()
        assert all(member.is_gone for member in gone)
        assert not any(member.is_gone for member in fleet.members.values())
        assert fleet.size == sum(one.is_routable for one in snapshot.instances)


@given(
    snapshots,
    st.sets(st.sampled_from([f"{n}@h:{p}" for n in "abcdef" for p in (1, 2)])),
    policies,
    st.sampled_from([None, "x", "y"]),
)
def test_every_candidate_comes_at_most_once_and_all_that_are_not_refused_do(
    snapshot: Snapshot, refused: set[str], policy: BalancingPolicy, zone: str | None
) -> None:
    fleet = Fleet("s", str, breaker=POLICY)
    fleet.balance_by(policy, zone)
    fleet.apply(snapshot, NOW_S)
    for key in refused & fleet.members.keys():
        permit = fleet.members[key].breaker.admit(NOW_S)
        assert permit is not None
        fleet.members[key].breaker.failed(permit, NOW_S, why="test", chance=0.5, was_reached=False)
    random = Random(0).random

    tried: list[Member[str]] = []
    while (choice := fleet.choose(tried, NOW_S, random, KEY)) is not None:
        tried.append(choice[0])
        assert len(tried) <= fleet.size

    wanted = {one.key for one in snapshot.instances if one.is_routable} - refused
    keys = [member.instance.key for member in tried]
    ranks = [(not one.instance.weight, RANK[one.instance.status]) for one in tried]
    assert sorted(wanted) == sorted(keys)
    assert sorted(ranks) == ranks


@given(snapshots, st.lists(st.floats(0, 25), max_size=20), st.integers(0, 1000))
def test_nobody_is_chosen_whose_breaker_would_not_admit(
    snapshot: Snapshot, pauses: list[float], seed: int
) -> None:
    """Whatever fails and whenever it comes back: a choice always has the Breaker's word."""
    fleet = Fleet("s", str, breaker=POLICY)
    fleet.apply(snapshot)
    chance = Random(seed)
    now_s = NOW_S
    for pause_s in pauses:
        now_s += pause_s
        able = {key for key, one in fleet.members.items() if one.breaker.would_admit(now_s)}
        is_outage = fleet.breakers.is_outage
        choice = fleet.choose((), now_s, chance.random)

        routable = {one.key for one in snapshot.instances if one.is_routable}
        assert is_outage or (choice is not None) == bool(able & routable)
        if choice is not None:
            member, permit = choice
            assert is_outage or member.instance.key in able
            assert member.instance.key in routable
            if chance.random() < 0.5:
                member.breaker.failed(permit, now_s, why="test", chance=chance.random())


@given(snapshots, snapshots, st.floats(0, 40), st.floats(0, 40))
def test_the_weight_of_one_that_is_new_only_grows_and_no_weight_exceeds_its_own(
    before: Snapshot, after: Snapshot, pause_s: float, further_s: float
) -> None:
    fleet = Fleet("s", str, breaker=POLICY)
    fleet.balance_by(BalancingPolicy(slow_start_s=30.0))
    fleet.apply(before, NOW_S)
    fleet.apply(after, NOW_S)

    seen: list[dict[str, float]] = []
    for now_s in (NOW_S, NOW_S + pause_s, NOW_S + pause_s + further_s, NOW_S + 80):
        fleet.refresh(now_s)
        seen.append({key: one.weight for key, one in fleet.members.items()})

    for key, one in fleet.members.items():
        weights = [weights[key] for weights in seen]
        if one.instance.is_routable:
            assert sorted(weights) == weights
            assert weights[-1] == one.instance.weight
        assert max(weights) <= one.instance.weight
