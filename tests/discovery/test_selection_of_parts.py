"""From the catalog to the listeners: which change tells whom what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gateway.core.config import ServiceConfig
from gateway.core.model import Instance, Snapshot
from gateway.discovery.catalog import Catalog
from gateway.discovery.selection import Selection
from tests.fakes.clock import FakeClock

WEB = ServiceConfig(name="web", datacenters=("dc2",))


class Selecting:
    """A Selection with its catalog, and all that it told."""

    def __init__(self, *services: ServiceConfig) -> None:
        self.catalog = Catalog(clock=FakeClock())
        self.selection = Selection(self.catalog)
        self.told: list[Snapshot] = []
        self.use(*services)
        self.selection.subscribe(self.told.append)

    def use(self, *services: ServiceConfig) -> None:
        self.selection.use({one.name: one for one in services})

    def publish(self, part: str, *names: str) -> None:
        instances = tuple(Instance(key=one, id=one, host="h", port=1) for one in names)
        snapshot = Snapshot(service=part, instances=instances, source="consul")
        self.catalog.publish(snapshot, confirmed_at_s=1000.0)

    def last(self) -> tuple[str, list[str]]:
        snapshot = self.told[-1]
        return snapshot.service, ids(snapshot.instances)


def ids(instances: Iterable[Instance]) -> list[str]:
    return [one.id for one in instances]


def test_a_change_in_any_datacenter_tells_the_whole_under_the_name_of_the_service() -> None:
    seen = Selecting(WEB)

    seen.publish("web", "a")
    assert seen.last() == ("web", ["a"])

    seen.publish("web@dc2", "b")
    assert seen.last() == ("web", ["a", "dc2:b"])

    seen.publish("web")
    assert seen.last() == ("web", ["dc2:b"])


def test_what_is_heard_from_elsewhere_first_waits_for_the_own_datacenter() -> None:
    seen = Selecting(WEB)

    seen.publish("web@dc2", "b")
    assert seen.told == []

    seen.publish("web")
    assert seen.last() == ("web", ["dc2:b"])


def test_parts_of_services_that_nobody_uses_are_told_to_nobody() -> None:
    seen = Selecting(WEB)

    seen.publish("other", "a")
    seen.publish("web@dc9", "a")

    assert seen.told == []
    assert repr(seen.selection) == "<Selection of 2 parts>"


def test_another_choice_holds_at_once_for_what_is_known() -> None:
    seen = Selecting(WEB)
    seen.publish("web", "a")
    seen.publish("web@dc2", "b")

    seen.use(replace(WEB, datacenters=()))

    assert seen.last() == ("web", ["a"])
