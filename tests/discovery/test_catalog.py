"""The catalog: replaced whole, silent when nothing changed, honest about its age."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from gateway.core.model import Instance, Snapshot, Status
from gateway.discovery.catalog import Catalog
from tests.fakes.clock import FakeClock


def instance(name: str, status: Status = Status.PASSING) -> Instance:
    return Instance(key=name, id=name, host="127.0.0.1", port=80, status=status)


def snapshot(*names: str, source: str = "consul", index: int = 1) -> Snapshot:
    return Snapshot(
        service="web",
        instances=tuple(instance(name) for name in names),
        source=source,
        index=index,
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def catalog(clock: FakeClock) -> Catalog:
    return Catalog(clock=clock)


def test_a_service_that_was_never_heard_of_is_none(catalog: Catalog) -> None:
    assert catalog.get("web") is None
    assert catalog.age_s("web") is None


def test_listeners_hear_of_changes_only(catalog: Catalog) -> None:
    heard: list[Snapshot] = []
    catalog.subscribe(heard.append)

    results = [
        catalog.publish(snapshot("a", index=1), confirmed_at_s=1.0),
        catalog.publish(snapshot("a", index=2), confirmed_at_s=2.0),
        catalog.publish(snapshot("a", "b", index=3), confirmed_at_s=3.0),
    ]

    assert results == [True, False, True]
    assert heard == [snapshot("a", index=1), snapshot("a", "b", index=3)]


def test_a_service_without_instances_is_news_the_first_time(catalog: Catalog) -> None:
    """It is the difference between "never heard" and "nobody there"."""
    assert catalog.publish(snapshot(), confirmed_at_s=1.0)
    assert not catalog.publish(snapshot(), confirmed_at_s=2.0)


def test_an_answer_without_a_change_still_freshens(catalog: Catalog, clock: FakeClock) -> None:
    catalog.publish(snapshot("a", index=1), confirmed_at_s=90.0)
    catalog.publish(snapshot("a", index=2), confirmed_at_s=99.0)
    entry = catalog.entries()["web"]

    assert catalog.age_s("web") == 1.0
    assert (entry.snapshot.index, entry.is_stale) == (2, False)
    clock.advance(5)
    assert catalog.age_s("web") == 6.0


def test_a_doubted_service_is_stale_until_it_is_confirmed(catalog: Catalog) -> None:
    catalog.publish(snapshot("a"), confirmed_at_s=90.0)

    catalog.doubt("web")
    doubted = catalog.entries()["web"]
    catalog.publish(snapshot("a"), confirmed_at_s=99.0)

    assert (doubted.is_stale, doubted.confirmed_at_s) == (True, 90.0)
    assert not catalog.entries()["web"].is_stale


def test_an_answer_that_confirms_nothing_leaves_the_entry_as_old_as_it_was(
    catalog: Catalog,
) -> None:
    catalog.publish(snapshot("a"), confirmed_at_s=90.0)
    catalog.publish(snapshot("a", "b"), confirmed_at_s=None)
    entry = catalog.entries()["web"]

    assert (len(entry.snapshot.instances), entry.confirmed_at_s) == (2, 90.0)
    assert entry.is_stale


def test_what_comes_from_disk_is_stale_and_never_replaces_what_is_known(catalog: Catalog) -> None:
    from_disk = snapshot("old", source="disk")
    other = replace(from_disk, service="other")
    catalog.publish(snapshot("a"), confirmed_at_s=90.0)

    catalog.restore([from_disk, other])

    assert catalog.entries()["web"].snapshot == snapshot("a")
    restored = catalog.entries()["other"]
    assert (restored.snapshot, restored.confirmed_at_s) == (other, None)
    assert restored.is_stale


def test_a_forgotten_service_is_as_if_never_heard_of(catalog: Catalog) -> None:
    catalog.publish(snapshot("a"), confirmed_at_s=90.0)

    catalog.forget("web")
    catalog.forget("web")

    assert catalog.get("web") is None


def test_doubting_an_unknown_service_does_nothing(catalog: Catalog) -> None:
    catalog.doubt("web")

    assert catalog.get("web") is None


def test_changes_are_logged_with_counts_and_nothing_else_is(catalog: Catalog) -> None:
    sick = replace(
        snapshot("a"), instances=(instance("a", Status.CRITICAL), replace(instance("b"), held=True))
    )
    with capture_logs() as logs:
        catalog.publish(snapshot("a", "c"), confirmed_at_s=1.0)
        catalog.publish(snapshot("a", "c"), confirmed_at_s=2.0)
        catalog.publish(sick, confirmed_at_s=3.0)

    assert len(logs) == 2
    assert logs[1] == {
        "event": "service_changed",
        "log_level": "info",
        "service": "web",
        "source": "consul",
        "instances": 2,
        "routable": 1,
        "held": 1,
        "added": 1,
        "removed": 1,
    }


def test_the_repr_is_a_window(catalog: Catalog) -> None:
    catalog.publish(snapshot("a"), confirmed_at_s=None)

    assert repr(catalog) == "<Catalog services=1 stale=1>"
