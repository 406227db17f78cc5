"""From a policy to the Balancer of a Fleet: how the parts are put together.

From the inside to the outside: the Balancer that the policy names, the zone around it, and around
that the cookie, because a client that was here before belongs where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from gateway.core.affinity import Named, stick
from gateway.core.balancing import Balancer, RoundRobin, at_random, ewma, least_requests, p2c
from gateway.core.hashing import rendezvous
from gateway.core.policy import BalanceName, BalancingPolicy
from gateway.core.zones import Zoned, prefer_zone


class Candidate(Zoned, Named, Protocol):
    """All that any Balancer wants to know."""


C = TypeVar("C", bound=Candidate)

_BALANCERS: Mapping[BalanceName, Balancer[Any]] = MappingProxyType(
    {
        "p2c": p2c,
        "random": at_random,
        "least_requests": least_requests,
        "ewma": ewma,
        "hash": rendezvous,
    }
)


def balancer_of(policy: BalancingPolicy, zone: str | None) -> Balancer[Any]:
    """Make the Balancer of one Fleet; `zone` is the gateway's own, None where it has none."""
    balancer: Balancer[Any] = (
        RoundRobin() if policy.balance == "round_robin" else _BALANCERS[policy.balance]
    )
    if zone is not None:
        balancer = prefer_zone(balancer, zone)
    return stick(balancer) if policy.sticky.cookie is not None else balancer
