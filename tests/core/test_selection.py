"""What a service's Fleet follows: tags, and other datacenters behind the own one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.config import ServiceConfig
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.selection import parts_of, selected, split_part

PLAIN = ServiceConfig(name="web")
SPREAD = ServiceConfig(name="web", datacenters=("dc2", "dc3"))


def instance(name: str, *tags: str, status: Status = Status.PASSING) -> Instance:
    return Instance(key=f"{name}/h:1", id=name, host="h", port=1, tags=tags, status=status)


def part(name: str, *instances: Instance, held_until_s: float | None = None) -> Snapshot:
    return Snapshot(
        service=name, instances=instances, source="consul", index=7, held_until_s=held_until_s
    )


def test_each_datacenter_has_a_name_of_its_own() -> None:
    assert parts_of(PLAIN) == ("web",)
    assert parts_of(SPREAD) == ("web", "web@dc2", "web@dc3")
    assert [split_part(one) for one in parts_of(SPREAD)] == [
        ("web", None),
        ("web", "dc2"),
        ("web", "dc3"),
    ]


def test_where_nothing_is_asked_for_the_snapshot_is_passed_on_as_it_is() -> None:
    snapshot = part("web", instance("a"))

    assert selected(PLAIN, [snapshot]) is snapshot
    assert selected(PLAIN, [None]) is None


def test_other_datacenters_come_behind_in_their_order_under_their_own_ids() -> None:
    """Two machines of the same name may have the same address in two datacenters."""
    joined = selected(
        SPREAD, [part("web", instance("a")), part("web@dc2", instance("a")), part("web@dc3")]
    )

    assert joined is not None
    assert (joined.service, joined.source, joined.index) == ("web", "consul", 7)
    assert [(one.id, one.key, one.priority) for one in joined.instances] == [
        ("a", "a/h:1", 0),
        ("dc2:a", "dc2:a/h:1", 1),
    ]


def test_the_place_in_the_list_is_the_priority_whoever_was_heard_of_first() -> None:
    joined = selected(SPREAD, [part("web"), None, part("web@dc3", instance("a"))])

    assert joined is not None
    assert [(one.id, one.priority) for one in joined.instances] == [("dc3:a", 2)]


def test_nothing_is_selected_before_the_own_datacenter_was_heard_of() -> None:
    assert selected(SPREAD, [None, part("web@dc2", instance("a")), None]) is None


def test_the_first_hold_to_end_is_that_of_the_whole() -> None:
    first = part("web", held_until_s=9.0)

    joined = selected(SPREAD, [first, part("web@dc2", held_until_s=5.0), None])

    assert joined is not None
    assert joined.held_until_s == 5.0


def test_only_those_with_all_tags_may_serve_and_the_others_are_marked() -> None:
    service = ServiceConfig(name="web", tags=frozenset({"v2", "blue"}))
    listed = [
        instance("a", "v2", "blue", "more"),
        instance("b", "v2"),
        instance("c", "v2", "blue", status=Status.CRITICAL),
        instance("d", status=Status.CRITICAL),
    ]

    joined = selected(service, [part("web", *listed)])

    assert joined is not None
    assert {one.id: one.status for one in joined.instances} == {
        "a": Status.PASSING,
        "b": Status.UNTAGGED,
        "c": Status.CRITICAL,
        "d": Status.UNTAGGED,
    }


def test_tags_hold_in_every_datacenter() -> None:
    service = ServiceConfig(name="web", tags=frozenset({"v2"}), datacenters=("dc2",))

    joined = selected(service, [part("web"), part("web@dc2", instance("a"), instance("b", "v2"))])

    assert joined is not None
    assert [one.id for one in joined.instances if one.is_routable] == ["dc2:b"]


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=3, unique=True), min_size=3, max_size=3),
    st.frozensets(st.sampled_from("xy")),
)
def test_nobody_is_lost_or_told_twice(names: list[list[str]], tags: frozenset[str]) -> None:
    service = ServiceConfig(name="web", tags=tags, datacenters=("dc2", "dc3"))
    parts = [
        part(name, *(instance(one, *"x") for one in listed))
        for name, listed in zip(parts_of(service), names, strict=True)
    ]

    joined = selected(service, parts)

    assert joined is not None
    keys = [one.key for one in joined.instances]
    assert len(keys) == sum(map(len, names))
    assert keys == sorted(set(keys))
    assert all(one.is_routable == (tags <= {"x"}) for one in joined.instances)
