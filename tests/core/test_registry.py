"""What registries tell of themselves."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.registry import RegistryHealth


def test_a_registry_that_was_never_asked_is_neither_well_nor_ill() -> None:
    health = RegistryHealth(name="consul", reachable=None, since_s=7.0)

    assert (health.reachable, health.detail) == (None, None)
    assert health != replace(health, reachable=False)
