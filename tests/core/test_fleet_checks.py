"""The registry, health checks and datacenters: who is in the tiers, and who says no."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet import Fleet, Member
from gateway.core.health import UNKNOWN, CheckState, Opinion
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import BreakerPolicy

NOW_S = 1000.0
FAILING = CheckState(opinion=Opinion.UNHEALTHY, why="/health: 503")
HEALTHY = CheckState(opinion=Opinion.HEALTHY)


def instance(
    name: str, *, status: Status = Status.PASSING, priority: int = 0, scheme: str = "http"
) -> Instance:
    return Instance(
        key=name, id=name, host="h", port=1, status=status, priority=priority, scheme=scheme
    )


def fleet_of(*instances: Instance) -> Fleet[str]:
    fleet = Fleet("web", lambda one: one.key, breaker=BreakerPolicy(consecutive_failures=1))
    follow(fleet, *instances)
    return fleet


def follow(fleet: Fleet[str], *instances: Instance) -> None:
    fleet.apply(Snapshot(service="web", instances=instances, source="test"))


def tiers(fleet: Fleet[str]) -> list[list[str]]:
    return [[member.instance.key for member in tier] for tier in fleet.tiers]


# --- Health checks -------------------------------------------------------------------------------


def test_whoever_fails_its_check_is_out_without_a_new_snapshot_and_in_again() -> None:
    fleet = fleet_of(instance("a"), instance("b"))

    fleet.checked("a", FAILING)
    assert tiers(fleet) == [["b"]]

    fleet.checked("a", HEALTHY)
    assert tiers(fleet) == [["a", "b"]]


def test_whoever_is_well_again_gets_a_trial_at_once_however_long_its_breaker_would_stay_open() -> (
    None
):
    fleet = fleet_of(instance("a"), instance("b"))
    breaker = fleet.members["a"].breaker
    permit = breaker.admit(NOW_S)
    assert permit is not None
    breaker.failed(permit, NOW_S, why="connect_failed", chance=1.0)
    assert not breaker.would_admit(NOW_S + 1)

    follow(fleet, instance("a", status=Status.CRITICAL), instance("b"))
    follow(fleet, instance("a"), instance("b"))

    assert breaker.would_admit(NOW_S + 1)


def test_a_check_that_says_the_same_as_before_changes_nothing() -> None:
    fleet = fleet_of(instance("a"))
    before = fleet.tiers

    fleet.checked("a", HEALTHY)

    assert before is fleet.tiers
    assert fleet.members["a"].check is HEALTHY


def test_a_check_cannot_let_in_whom_the_registry_refuses() -> None:
    fleet = fleet_of(instance("a", status=Status.CRITICAL))

    fleet.checked("a", HEALTHY)

    assert tiers(fleet) == []


def test_what_a_check_found_outlives_snapshots_but_not_the_instance() -> None:
    fleet = fleet_of(instance("a"), instance("b"))
    fleet.checked("a", FAILING)

    follow(fleet, instance("a", status=Status.WARNING), instance("b"))
    assert tiers(fleet) == [["b"]]

    follow(fleet, instance("b"))
    follow(fleet, instance("a"), instance("b"))
    assert tiers(fleet) == [["a", "b"]]


def test_what_was_found_over_http_says_nothing_of_https() -> None:
    fleet = fleet_of(instance("a"))
    fleet.checked("a", FAILING)

    follow(fleet, instance("a", scheme="https"))

    assert fleet.members["a"].check is UNKNOWN
    assert tiers(fleet) == [["a"]]


def test_a_check_of_somebody_who_is_gone_is_ignored() -> None:
    fleet = fleet_of(instance("a"))

    fleet.checked("b", FAILING)

    assert tiers(fleet) == [["a"]]


# --- Datacenters ---------------------------------------------------------------------------------


def test_other_datacenters_come_after_all_that_is_here_in_their_order() -> None:
    fleet = fleet_of(
        instance("far", priority=2),
        instance("near", priority=1),
        instance("near-warning", priority=1, status=Status.WARNING),
        instance("here-warning", status=Status.WARNING),
        instance("here"),
    )

    assert tiers(fleet) == [["here"], ["here-warning"], ["near"], ["near-warning"], ["far"]]


def test_another_datacenter_serves_only_while_nobody_here_can() -> None:
    fleet = fleet_of(instance("here"), instance("there", priority=1))

    def chosen() -> list[str]:
        choices = [fleet.choose((), NOW_S, Random(seed).random) for seed in range(5)]
        return sorted({choice[0].instance.key for choice in choices if choice is not None})

    assert chosen() == ["here"]
    fleet.checked("here", FAILING)
    assert chosen() == ["there"]
    fleet.checked("here", HEALTHY)
    assert chosen() == ["here"]


# --- The joined verdict --------------------------------------------------------------------------

members = st.tuples(
    st.sampled_from(Status), st.sampled_from([UNKNOWN, HEALTHY, FAILING]), st.booleans()
)


@given(st.lists(members, max_size=8))
def test_any_no_wins(facts: list[tuple[Status, CheckState, bool]]) -> None:
    """Whoever gets more than a trial has the word of all three, and whoever has it gets traffic."""
    fleet = fleet_of(*(instance(str(n), status=fact[0]) for n, fact in enumerate(facts)))
    wanted = set()
    for number, (status, check, opens) in enumerate(facts):
        member = fleet.members[str(number)]
        fleet.checked(str(number), check)
        if opens:
            permit = member.breaker.admit(NOW_S)
            assert permit is not None
            member.breaker.failed(permit, NOW_S, why="test", chance=0.5, was_reached=False)
        if status in {Status.PASSING, Status.WARNING} and not check.is_failing and not opens:
            wanted.add(str(number))

    tried: list[Member[str]] = []
    while (choice := fleet.choose(tried, NOW_S, Random(0).random)) is not None:
        tried.append(choice[0])

    served = [one.instance.key for one in tried if not one.breaker.has_trial_out]
    assert sorted(wanted) == sorted(served)
    assert (not fleet.tiers) == (fleet.size == 0)
