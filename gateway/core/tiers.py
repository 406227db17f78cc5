"""Who gets traffic only when nobody before can: the order of tiers.

    1. all that have a weight, before those of weight 0
    2. the gateway's own datacenter, before each other one
    3. those that pass, before those with warnings

Critical ones are in no tier, or, with `panic`, in the last ones; those in maintenance never are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from gateway.core.model import Instance, Status

_RANKS = {Status.PASSING: 0, Status.WARNING: 1, Status.CRITICAL: 2}


class Listed(Protocol):
    """Something that stands for an Instance."""

    instance: Instance


T = TypeVar("T", bound=Listed)


def tiers_of(listed: Iterable[T], *, panic: bool) -> tuple[tuple[T, ...], ...]:
    """Sort all that may have traffic into tiers, none of them empty."""
    tiers: dict[tuple[bool, bool, int, int], list[T]] = {}
    for one in listed:
        instance = one.instance
        is_critical = instance.status is Status.CRITICAL
        if instance.is_routable or (panic and is_critical):
            rank = (is_critical, not instance.weight, instance.priority, _RANKS[instance.status])
            tiers.setdefault(rank, []).append(one)
    return tuple(tuple(tiers[rank]) for rank in sorted(tiers))
