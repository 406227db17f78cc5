"""Consul's JSON -> Instances: one bad entry never takes its neighbours with it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Instance, Status
from gateway.discovery.consul_answers import MAX_NAMED, listing_of


def entry(
    *, checks: list[tuple[str, str]] | None = None, node: Any = None, **service: Any
) -> dict[str, Any]:
    """Make an entry as /v1/health/service gives it."""
    passing = [("serfHealth", "passing"), ("service:web-1", "passing")]
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.1"} | (node or {}),
        "Service": {
            "ID": "web-1",
            "Service": "web",
            "Tags": ["v2", "blue"],
            "Address": "10.1.1.1",
            "Port": 8080,
            "Meta": {"version": "7"},
            "Weights": {"Passing": 1, "Warning": 1},
        }
        | service,
        "Checks": [{"CheckID": name, "Status": status} for name, status in checks or passing],
    }


def only(one: dict[str, Any], **how: Any) -> Instance:
    """Read one entry that must be usable."""
    listing = listing_of([one], **how)
    assert listing.skipped_count == 0
    return listing.instances[0]


def test_an_entry_becomes_an_instance() -> None:
    assert only(entry()) == Instance(
        key="n1/web-1/10.1.1.1:8080",
        id="n1/web-1",
        host="10.1.1.1",
        port=8080,
        tags=("v2", "blue"),
        meta=(("version", "7"),),
    )


@pytest.mark.parametrize("absent", ["", None])
def test_an_empty_service_address_means_that_of_the_node(absent: str | None) -> None:
    assert only(entry(Address=absent)).authority == "10.0.0.1:8080"


@pytest.mark.parametrize("address", ["2001:db8::1", "[2001:db8::1]"])
def test_an_ipv6_address_gets_brackets_only_in_an_authority(address: str) -> None:
    instance = only(entry(Address=address))

    assert instance.host == "2001:db8::1"
    assert instance.authority == "[2001:db8::1]:8080"


def test_tags_and_meta_may_be_null() -> None:
    instance = only(entry(Tags=None, Meta=None, Weights=None))

    assert (instance.tags, instance.meta, instance.weight) == ((), (), 1)


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([("a", "passing")], Status.PASSING),
        ([("a", "passing"), ("b", "warning")], Status.WARNING),
        ([("a", "warning"), ("b", "critical"), ("c", "warning")], Status.CRITICAL),
        ([("serfHealth", "critical"), ("b", "passing")], Status.CRITICAL),
        ([("_node_maintenance", "critical")], Status.MAINTENANCE),
        ([("a", "critical"), ("_service_maintenance:web-1", "critical")], Status.MAINTENANCE),
    ],
    ids=lambda value: value.value if isinstance(value, Status) else None,
)
def test_the_worst_check_counts(checks: list[tuple[str, str]], expected: Status) -> None:
    assert only(entry(checks=checks)).status is expected


def test_an_instance_without_checks_is_passing() -> None:
    assert only(entry() | {"Checks": None}).status is Status.PASSING


@pytest.mark.parametrize(
    ("status", "weights", "meta", "expected"),
    [
        ("passing", {"Passing": 10, "Warning": 3}, {}, 10),
        ("warning", {"Passing": 10, "Warning": 3}, {}, 3),
        ("warning", {"Passing": 10, "Warning": 0}, {}, 0),
        ("passing", {"Passing": 1, "Warning": 1}, {"weight": "5"}, 5),
        ("passing", {"Passing": 10, "Warning": 1}, {"weight": "5"}, 10),
        ("warning", {"Passing": 1, "Warning": 1}, {"weight": "5"}, 1),
        ("passing", {"Passing": 1, "Warning": 1}, {"weight": "0"}, 1),
        ("passing", {"Passing": 1, "Warning": 1}, {"weight": "heavy"}, 1),
        ("passing", {"Passing": 10**9, "Warning": 1}, {}, 65535),
    ],
)
def test_the_weight_is_the_one_for_the_status(
    status: str, weights: dict[str, int], meta: dict[str, str], expected: int
) -> None:
    one = entry(checks=[("service:web-1", status)], Weights=weights, Meta=meta)

    assert only(one).weight == expected


@pytest.mark.parametrize(
    ("meta", "expected"),
    [({"scheme": "https"}, "https"), ({"scheme": "grpc"}, "http"), ({}, "http")],
)
def test_the_meta_may_ask_for_https(meta: dict[str, str], expected: str) -> None:
    assert only(entry(Meta=meta)).scheme == expected


def test_the_meta_may_name_a_zone() -> None:
    assert only(entry(Meta={"zone": "eu-1a"})).zone == "eu-1a"


def test_a_tagged_address_of_the_service_gives_address_and_port() -> None:
    tagged = {"wan": {"Address": "198.51.100.1", "Port": 9000}}
    one = entry(TaggedAddresses=tagged)

    assert only(one).authority == "10.1.1.1:8080"
    assert only(one, tagged_address="lan").authority == "10.1.1.1:8080"
    assert only(one, tagged_address="wan").authority == "198.51.100.1:9000"


def test_a_tagged_address_of_the_node_gives_only_the_address() -> None:
    one = entry(node={"TaggedAddresses": {"wan": "198.51.100.9"}})

    assert only(one, tagged_address="wan").authority == "198.51.100.9:8080"


@pytest.mark.parametrize(
    "bad",
    [
        entry(Port=0),
        entry(Port=65536),
        entry(Port="8080"),
        entry(Port=True),
        entry(Address="a b"),
        entry(Address="evil/path"),
        entry(Address="host\r\nx: y"),
        entry(Address=7),
        entry(Meta=["not", "a", "map"]),
        entry(Weights={"Passing": float("inf")}),
        {"Node": {}, "Service": {}, "Checks": []},
        {},
        None,
        "text",
    ],
    ids=str,
)
def test_a_bad_entry_is_skipped_alone_and_counted(bad: Any) -> None:
    good = entry(ID="web-2")

    listing = listing_of([bad, good])

    assert [instance.id for instance in listing.instances] == ["n1/web-2"]
    assert listing.skipped_count == 1
    assert [one.why for one in listing.skipped] != [""]


def test_instances_are_sorted_whatever_the_order_of_the_answer() -> None:
    entries = [entry(ID=name) for name in "cab"]

    listing = listing_of(entries)

    assert [instance.id for instance in listing.instances] == ["n1/a", "n1/b", "n1/c"]
    assert listing_of(reversed(entries)) == listing


def test_thousands_are_sorted_too() -> None:
    entries = [entry(ID=f"w{number * 7919 % 10_000:05}") for number in range(10_000)]

    keys = [instance.key for instance in listing_of(entries).instances]

    assert keys == sorted(keys)
    assert len(keys) == 10_000


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (entry(Port=0), "n1/web-1: it is registered without a port"),
        (entry(Port="http"), "n1/web-1: not a port: 'http'"),
        (entry(Address="a b"), "n1/web-1: not an address: 'a b'"),
        (entry(ID="\ud800"), "n1/\\ud800: its id is not text"),
        (entry(Meta=7), "n1/web-1: a part of it has the wrong type"),
        ({"Node": {"Node": "n"}, "Service": {"ID": "x"}}, "n/x: it has no Checks"),
        ("text", "an entry without an id: a part of it has the wrong type"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_skipped_entry_is_named_with_its_id_and_why(bad: Any, named: str) -> None:
    assert [str(one) for one in listing_of([bad]).skipped] == [named]


def test_of_many_skipped_entries_some_are_named_and_all_are_counted() -> None:
    listing = listing_of([entry(ID=f"w{number}", Port=0) for number in range(50)])

    assert (len(listing.skipped), listing.skipped_count) == (MAX_NAMED, 50)


def test_a_list_that_no_consul_would_send_is_refused_and_not_counted_for_ever() -> None:
    with pytest.raises(ValueError, match="more than"):
        listing_of(itertools.repeat({}))


def test_there_is_a_step_for_each_entry() -> None:
    """Whoever reads beside the event loop lets it go on at each of them."""
    steps: list[None] = []

    listing_of([entry(ID=f"w{number}") for number in range(10)], step=lambda: steps.append(None))

    assert len(steps) >= 10


def test_the_same_id_on_two_agents_is_two_instances() -> None:
    instances = listing_of([entry(), entry(node={"Node": "n2"})]).instances

    assert [instance.id for instance in instances] == ["n1/web-1", "n2/web-1"]


words = st.text("a7.:[]/ \n", max_size=5) | st.sampled_from(["Passing", "wan", "Port"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(anything))
def test_no_json_at_all_raises(entries: list[Any]) -> None:
    listing = listing_of(json.loads(json.dumps(entries)))

    assert listing.instances == ()
    assert listing.skipped_count == len(entries)


@given(
    st.dictionaries(
        st.sampled_from(["ID", "Tags", "Address", "Port", "Meta", "Weights", "TaggedAddresses"]),
        anything,
    )
)
def test_an_entry_with_any_field_wrong_is_used_or_skipped(changes: dict[str, Any]) -> None:
    listing = listing_of([entry(**changes)], tagged_address="wan")

    assert len(listing.instances) + listing.skipped_count == 1
    assert all(0 < one.port < 65536 and one.host for one in listing.instances)
