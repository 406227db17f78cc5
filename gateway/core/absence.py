"""Why a service has nobody who may get traffic, in words: who refuses how many of its instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Protocol

from gateway.core.health import CheckState
from gateway.core.model import Instance, Snapshot, Status

_WORDS = {status: status.value for status in Status} | {Status.UNTAGGED: "without its tags"}

_NAMED = 3


class _Refused(Protocol):
    instance: Instance
    check: CheckState


def absence_of(members: Collection[_Refused], snapshot: Snapshot) -> str:
    """Say what a service has in place of instances that may get traffic."""
    skipped = _skipped(snapshot)
    if not members:
        return f"no usable instance: {skipped}" if skipped else "no instance registered"
    counted = [*_refused_by_registry(members), *_failing(members)]
    return f"no healthy instance: {', '.join([*counted, skipped] if skipped else counted)}"


def _skipped(snapshot: Snapshot) -> str:
    """Count the entries that cannot be used, and name the first ones."""
    if not snapshot.skipped_count:
        return ""
    named = "; ".join(str(one) for one in snapshot.skipped[:_NAMED])
    more = "; …" if snapshot.skipped_count > _NAMED else ""
    return f"{snapshot.skipped_count} not usable ({named}{more})"


def _refused_by_registry(members: Collection[_Refused]) -> Iterable[str]:
    """Count whom the registry refuses, by what it says: `2 critical`."""
    counts = Counter(one.instance.status for one in members if not one.instance.is_routable)
    return [f"{counts[status]} {_WORDS[status]}" for status in Status if status in counts]


def _failing(members: Collection[_Refused]) -> Iterable[str]:
    """Count whom only a health check refuses, and say what most of them fail by."""
    why = Counter(one.check.why for one in members if one.instance.is_routable)
    if not why:
        return []
    whose = "its health check" if why.total() == 1 else "their health checks"
    return [f"{why.total()} failing {whose} ({why.most_common(1)[0][0]})"]
