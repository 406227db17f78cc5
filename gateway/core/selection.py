"""What the Fleet of a service follows: those with the right tags, other datacenters last.

The one rule: where instances come from, here or elsewhere, is followed one by one and joined only
here. A service in another datacenter of the registry has a name of its own for that, `web@dc2`; no
service can be called so. Nothing is selected before the own datacenter has told something: else a
start would send the first requests far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.config import ServiceConfig
from gateway.core.model import Instance, Snapshot, Status

_AT = "@"


def parts_of(service: ServiceConfig) -> tuple[str, ...]:
    """Name all that is to be followed for a service, its own datacenter first."""
    return (service.name, *(service.name + _AT + one for one in service.datacenters))


def split_part(part: str) -> tuple[str, str | None]:
    """Take such a name apart: the service, and the datacenter; None for the registry's own."""
    service, at, datacenter = part.partition(_AT)
    return service, datacenter if at else None


def selected(service: ServiceConfig, parts: Sequence[Snapshot | None]) -> Snapshot | None:
    """Join what is known of the parts, in the order of `parts_of`, to one Snapshot.

    Instances without the tags stay in it, marked, so that a refusal can say why. None while the
    first part is not known.
    """
    local = parts[0] if parts else None
    if local is None or not (service.tags or service.datacenters):
        return local
    known = [(priority, one) for priority, one in enumerate(parts) if one is not None]
    instances = [
        _tagged(_placed(instance, priority, split_part(part.service)[1]), service.tags)
        for priority, part in known
        for instance in part.instances
    ]
    held_until = [part.held_until_s for _, part in known if part.held_until_s is not None]
    return replace(
        local,
        instances=tuple(sorted(instances, key=lambda one: one.key)),
        held_until_s=min(held_until, default=None),
        skipped=tuple(skipped for _, part in known for skipped in part.skipped),
        skipped_count=sum(part.skipped_count for _, part in known),
    )


def _placed(instance: Instance, priority: int, datacenter: str | None) -> Instance:
    """Put an instance behind those of its own datacenter; ids are unique in one of them only."""
    if datacenter is None:
        return instance
    key, id_ = f"{datacenter}:{instance.key}", f"{datacenter}:{instance.id}"
    return replace(instance, key=key, id=id_, priority=priority)


def _tagged(instance: Instance, tags: frozenset[str]) -> Instance:
    return instance if tags.issubset(instance.tags) else replace(instance, status=Status.UNTAGGED)
