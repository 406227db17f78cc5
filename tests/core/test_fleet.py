"""The Members of one service, and the choice among them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from random import Random

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.fleet import Fleet, Member, absence
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import BreakerPolicy

NOW_S = 1000.0
POLICY = BreakerPolicy(consecutive_failures=1, open_for_s=10.0)


def instance(
    name: str, *, status: Status = Status.PASSING, port: int = 80, weight: int = 1
) -> Instance:
    return Instance(
        key=f"{name}@10.0.0.1:{port}",
        id=name,
        host="10.0.0.1",
        port=port,
        status=status,
        weight=weight,
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
    assert of.breaker.failed(permit, NOW_S, why="connect_failed", chance=0.5)


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
    assert pytest.approx(NOW_S + 95.0) == fleet.retry_at_s(NOW_S)


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
    fleet = fleet_of(instance("a"), instance("b"), instance("c"))
    for one in fleet.members.values():
        open_breaker(one)
    random = Random(5).random

    given = [fleet.choose((), NOW_S + 10, random) for _ in range(4)]

    assert [choice is not None for choice in given] == [True, True, True, False]
    assert len({choice[0].instance.id for choice in given if choice is not None}) == 3


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

    assert pytest.approx(NOW_S + 9.5) == fleet.retry_at_s(NOW_S)


def test_a_fleet_and_its_members_show_how_they_are() -> None:
    fleet = fleet_of(instance("a"), instance("b"), instance("c", status=Status.WARNING))
    (gone,) = fleet.apply(snapshot(instance("a"), instance("c", status=Status.WARNING)))

    assert repr(fleet) == "<Fleet users, [1, 1]>"
    assert repr(member(fleet, "a")) == (
        "<Member a@10.0.0.1:80, 0 in flight, <Breaker closed, 0 in a row, epoch 0>>"
    )
    assert ", gone, " in repr(gone)


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ([], "service 'users' has no instance registered"),
        ([Status.CRITICAL] * 2, "service 'users' has no healthy instance: 2 critical"),
        ([Status.MAINTENANCE], "service 'users' has no healthy instance: 1 maintenance"),
        (
            [Status.MAINTENANCE, Status.CRITICAL],
            "service 'users' has no healthy instance: 1 critical, 1 maintenance",
        ),
    ],
    ids=["none", "critical", "maintenance", "both"],
)
def test_it_says_in_words_why_nobody_may_have_traffic(statuses: list[Status], words: str) -> None:
    listed = [instance(f"i{number}", status=status) for number, status in enumerate(statuses)]

    assert words == absence(snapshot(*listed))
