"""The order of tiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Instance, Status
from gateway.core.tiers import tiers_of


@dataclass
class Entry:
    instance: Instance


def entry(name: str, **facts: Any) -> Entry:
    return Entry(Instance(key=name, id=name, host="h", port=80, **facts))


def named(listed: list[Entry], *, panic: bool = False) -> list[list[str]]:
    return [[one.instance.id for one in tier] for tier in tiers_of(listed, panic=panic)]


EVERYBODY = [
    entry("resting", status=Status.MAINTENANCE),
    entry("sick-far", status=Status.CRITICAL, priority=1),
    entry("sick", status=Status.CRITICAL),
    entry("last", weight=0),
    entry("far-worn", priority=1, status=Status.WARNING),
    entry("farther", priority=2),
    entry("far", priority=1),
    entry("worn", status=Status.WARNING),
    entry("good"),
    entry("good-too"),
]


def test_first_weight_then_datacenter_then_status() -> None:
    assert named(EVERYBODY) == [
        ["good", "good-too"],
        ["worn"],
        ["far"],
        ["far-worn"],
        ["farther"],
        ["last"],
    ]


def test_with_panic_the_critical_ones_are_the_last_and_maintenance_stays_out() -> None:
    assert named(EVERYBODY, panic=True)[-2:] == [["sick"], ["sick-far"]]
    assert named(EVERYBODY[:1], panic=True) == []


@pytest.mark.parametrize("panic", [False, True])
def test_of_nobody_there_are_no_tiers(*, panic: bool) -> None:
    assert tiers_of([], panic=panic) == ()


@given(
    listed=st.lists(
        st.builds(
            entry,
            st.just("x"),
            status=st.sampled_from(Status),
            weight=st.integers(0, 2),
            priority=st.integers(0, 2),
        )
    ),
    panic=st.booleans(),
)
def test_everybody_who_may_have_traffic_is_in_one_tier_and_its_weights_are_of_one_kind(
    listed: list[Entry], *, panic: bool
) -> None:
    tiers = tiers_of(listed, panic=panic)

    allowed = {Status.PASSING, Status.WARNING} | ({Status.CRITICAL} if panic else set())
    wanted = [one for one in listed if one.instance.status in allowed]
    assert sorted(map(id, wanted)) == sorted(id(one) for tier in tiers for one in tier)
    for tier in tiers:
        assert len({bool(one.instance.weight) for one in tier}) == 1
