"""Configured instances as a registry."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.model import Instance, Snapshot
from gateway.core.registry import Registry, RegistryHealth
from gateway.discovery.catalog import Catalog
from gateway.discovery.static import StaticRegistry
from tests.fakes.clock import FakeClock


def snapshot(service: str) -> Snapshot:
    one = Instance(key=f"static/{service}:80", id=f"{service}:80", host=service, port=80)
    return Snapshot(service=service, instances=(one,), source="static")


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(clock=FakeClock())


@pytest.fixture
def registry(catalog: Catalog) -> StaticRegistry:
    return StaticRegistry([snapshot("a"), snapshot("b")], catalog=catalog, clock=FakeClock(7.0))


def test_followed_services_are_published_at_once_and_others_are_not(
    catalog: Catalog, registry: StaticRegistry
) -> None:
    registry.follow({"a"})

    assert {name: one.snapshot for name, one in catalog.entries().items()} == {"a": snapshot("a")}
    assert not catalog.entries()["a"].is_stale


def test_services_that_are_followed_no_more_are_forgotten(
    catalog: Catalog, registry: StaticRegistry
) -> None:
    registry.follow({"a"})
    registry.follow({"b"})

    assert set(catalog.entries()) == {"b"}


def test_a_service_that_is_not_configured_is_an_error_and_changes_nothing(
    catalog: Catalog, registry: StaticRegistry
) -> None:
    registry.follow({"a"})

    with pytest.raises(KeyError, match="c"):
        registry.follow({"b", "c"})
    assert set(catalog.entries()) == {"a"}


async def test_it_is_a_registry_that_is_always_well(registry: StaticRegistry) -> None:
    as_registry: Registry = registry

    assert as_registry.health() == RegistryHealth(name="static", reachable=True, since_s=7.0)
    assert as_registry.name == "static"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await as_registry.run()
