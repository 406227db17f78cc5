"""What follows from the facts that a registry tells of an instance."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.core.model import Instance, Status

A = Instance(key="a@10.0.0.1:80", id="a", host="10.0.0.1", port=80)


@pytest.mark.parametrize(
    ("status", "is_routable"),
    [
        (Status.PASSING, True),
        (Status.WARNING, True),
        (Status.CRITICAL, False),
        (Status.MAINTENANCE, False),
    ],
    ids=lambda value: value.value if isinstance(value, Status) else "",
)
def test_only_critical_and_maintenance_keep_traffic_away(
    status: Status, *, is_routable: bool
) -> None:
    assert is_routable == dataclasses.replace(A, status=status).is_routable


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("10.0.0.1", "10.0.0.1:80"),
        ("users.internal", "users.internal:80"),
        ("::1", "[::1]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
    ],
)
def test_the_authority_has_brackets_around_ipv6_only(host: str, authority: str) -> None:
    assert authority == dataclasses.replace(A, host=host).authority
