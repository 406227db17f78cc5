"""What the admin port shows: plain values, made anew for each request from the live objects.

The one rule: nothing here changes anything, and what is shown is what the engine goes by, not a
copy that could differ. What may be long is made in steps (`gateway.admin.steps`), and each instance
is shown as it was at its step. Instants are shown as seconds ago (`…age_s`, `since_s`) or ahead
(`…in_s`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from gateway import __version__
from gateway.admin.load import load_of
from gateway.admin.steps import Steps, mapped
from gateway.admin.verdict import verdict
from gateway.core.breaker import Breaker, BreakerState
from gateway.core.config import RoutingConfig
from gateway.core.errors_seen import NO_ERRORS, ErrorShare, sum_of
from gateway.core.fleet import Fleet, Member
from gateway.core.model import Instance, Status
from gateway.core.policy import RetryPolicy
from gateway.core.registry import Registry
from gateway.core.routing import Route, RouteMatch
from gateway.names import Names
from gateway.proxy.engine import Engine

Json = dict[str, Any]


class Freshness(Protocol):
    """How fresh a service's Snapshot is: an entry of the catalog, seen from here.

    `confirmed_at_s` is None when the registry never confirmed it in this run.
    """

    @property
    def confirmed_at_s(self) -> float | None:
        """When the registry last confirmed it (monotonic)."""
        ...

    @property
    def is_stale(self) -> bool:
        """Whether the registry cannot be asked about it at present."""
        ...


class Catalog(Protocol):
    """Who knows how fresh each service is."""

    def get(self, service: str) -> Freshness | None:
        """Tell how fresh it is; None when the registry was never heard of it."""
        ...


class View(Protocol):
    """What of a gateway the admin port reads."""

    @property
    def engine(self) -> Engine:
        """Its engine, with the routes and Fleets in use."""
        ...

    @property
    def registries(self) -> Sequence[Registry]:
        """All registries that it follows."""
        ...

    @property
    def names(self) -> Names:
        """Where names of instances are looked up."""
        ...

    @property
    def catalog(self) -> Catalog:
        """Where the Snapshots are."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether it is on its way out, or should get no new requests for another reason."""
        ...

    @property
    def started_at_s(self) -> float:
        """When it started (monotonic)."""
        ...

    @property
    def config(self) -> RoutingConfig:
        """The routes in use."""
        ...

    @property
    def configured_at_s(self) -> float:
        """When they were read (monotonic)."""
        ...


def readiness(view: View) -> Json:
    """Tell whether requests should come here, and if not, why.

    A service without instances does not make the gateway unready, for that would take all other
    services away with it; one that was never heard of does. So does a registry that has shown
    nothing since the start because it may not: others that started earlier know more.
    """
    blind = {
        health.name: health.detail
        for health in (registry.health() for registry in view.registries)
        if health.is_blind
    }
    missing = [name for name, fleet in view.engine.fleets.items() if fleet.snapshot is None]
    return {
        "ready": not (missing or blind or view.is_draining),
        "draining": view.is_draining,
        "missing_snapshots": sorted(missing),
        "blind_registries": blind,
    }


def health(view: View, now_s: float) -> Steps[Json]:
    """Sum up the whole gateway."""
    registries = [_registry(one, now_s) for one in view.registries]
    services: Json = {}
    for name, fleet in sorted(view.engine.fleets.items()):
        yield
        services[name] = yield from _service_summary(fleet, view.catalog.get(name), now_s)
    late_names = [
        {"name": name, "since_s": _seconds(now_s - late.since_s), "why": late.why}
        for name, late in view.names.late.at(now_s).items()
    ]
    statuses = [service["status"] for service in services.values()]
    return {
        "status": _overall(registries, statuses, has_late_names=bool(late_names)),
        "version": __version__,
        "uptime_s": _seconds(now_s - view.started_at_s),
        "draining": view.is_draining,
        "config": {
            "sha256": view.config.sha256 or None,
            "age_s": _seconds(now_s - view.configured_at_s),
        },
        "registries": registries,
        "late_names": late_names,
        "services": services,
    }


def routes(view: View) -> Steps[list[Json]]:
    """List the routes in the order of the file, each with all that holds for it."""
    return (yield from mapped(view.engine.targets, lambda target: _route(target.route)))


def services(view: View, now_s: float) -> Steps[list[Json]]:
    """List the services that a route goes to, with their instances."""
    shown: list[Json] = []
    for name in sorted(view.engine.fleets):
        yield
        shown.append((yield from service(view, name, now_s)))
    return shown


def service(view: View, name: str, now_s: float) -> Steps[Json]:
    """Show one service with every instance; raises KeyError when no route goes to it."""
    fleet = view.engine.fleets[name]
    summary = yield from _service_summary(fleet, view.catalog.get(name), now_s)
    tier_of = {member: rank for rank, tier in enumerate(fleet.tiers) for member in tier}
    members = yield from mapped(
        tuple(fleet.members.values()),
        lambda member: _member(member, tier_of.get(member), now_s),
    )
    load = load_of(view.engine.loads, name)
    return {"name": name, **summary, "load": load, "instances": members}


def _overall(registries: list[Json], statuses: list[str], *, has_late_names: bool) -> str:
    if statuses and all(status == "down" for status in statuses):
        return "down"
    is_well = all(status == "ok" for status in statuses)
    is_told = all(one["reachable"] for one in registries) and not has_late_names
    return "ok" if is_well and is_told else "degraded"


def _registry(registry: Registry, now_s: float) -> Json:
    health = registry.health()
    return {
        "name": health.name,
        "address": health.address,
        "reachable": health.reachable,
        "since_s": _seconds(now_s - health.since_s),
        "detail": health.detail,
    }


class _Tally:
    """What is counted of a service: of each instance, and of each that may have requests."""

    def __init__(self, now_s: float) -> None:
        self._now_s = now_s
        self.count = 0
        self.statuses: Counter[Status] = Counter()
        self.states: Counter[BreakerState] = Counter()
        self.not_closed: list[Json] = []
        self.held_count = 0
        self.failing_count = 0
        self.in_flight = 0
        self.errors = NO_ERRORS
        self.has_many_errors = False
        self.meant_count = 0
        self.closed_count = 0
        self.can_serve = False
        self.is_here = False
        self.is_panic = True

    def add(self, member: Member[Any]) -> None:
        """Count an instance."""
        instance, state = member.instance, member.breaker.state(self._now_s)
        self.count += 1
        self.statuses[instance.status] += 1
        self.states[state] += 1
        if state is not BreakerState.CLOSED:
            shown = {"instance": instance.id, **_breaker(member.breaker, self._now_s)}
            self.not_closed.append(shown)
        self.held_count += instance.held
        self.failing_count += member.check.is_failing
        self.in_flight += member.in_flight
        share = member.error_share(self._now_s)
        self.errors = sum_of((self.errors, share))
        self.has_many_errors |= share.is_high
        self.meant_count += instance.is_routable

    def add_routable(self, member: Member[Any]) -> None:
        """Count one that may have requests."""
        state = member.breaker.state(self._now_s)
        self.closed_count += state is BreakerState.CLOSED
        self.can_serve |= state is not BreakerState.OPEN
        self.is_here |= member.instance.priority == 0
        self.is_panic &= not member.instance.is_routable


def _service_summary(fleet: Fleet[Any], freshness: Freshness | None, now_s: float) -> Steps[Json]:
    tally = _Tally(now_s)
    routable = [member for tier in fleet.tiers for member in tier]
    yield from mapped(tuple(fleet.members.values()), tally.add)
    yield from mapped(routable, tally.add_routable)
    return {
        "status": _service_status(tally, freshness),
        "instances": tally.count,
        **{status.value: tally.statuses[status] for status in Status},
        "held": tally.held_count,
        "failing_checks": tally.failing_count,
        "in_flight": tally.in_flight,
        "errors": _errors(tally.errors),
        "snapshot": _snapshot(fleet, freshness, now_s),
        "breakers": {
            state.value: tally.states[state]
            for state in (BreakerState.OPEN, BreakerState.HALF_OPEN)
        },
        "open": tally.not_closed,
    }


def _service_status(tally: _Tally, freshness: Freshness | None) -> str:
    """Say `down` if no request can be answered, `degraded` if somebody should have a look.

    What the registry says of an instance, critical as well as maintenance, is its business and no
    reason for a look here, as long as others are left in this datacenter. What our own checks say
    against the registry is one, and so are many errors of the service or of one instance.
    """
    if not tally.can_serve:
        return "down"
    is_fresh = freshness is not None and not freshness.is_stale
    is_agreed = tally.closed_count == tally.meant_count
    is_well = is_fresh and tally.is_here and is_agreed and not tally.held_count
    has_errors = tally.has_many_errors or tally.errors.is_high
    return "ok" if is_well and not (tally.is_panic or has_errors) else "degraded"


def _snapshot(fleet: Fleet[Any], freshness: Freshness | None, now_s: float) -> Json | None:
    """Show where the Snapshot in use comes from; None when there is none."""
    if fleet.snapshot is None:
        return None
    confirmed_at_s = freshness.confirmed_at_s if freshness is not None else None
    return {
        "source": fleet.snapshot.source,
        "index": fleet.snapshot.index,
        "fresh": freshness is not None and not freshness.is_stale,
        "age_s": None if confirmed_at_s is None else _seconds(now_s - confirmed_at_s),
    }


def _member(member: Member[Any], tier: int | None, now_s: float) -> Json:
    """Show an instance; `tier` counts from 0, None where it is not to have any traffic."""
    return {
        **_instance(member.instance),
        "effective_weight": round(member.weight, 3),
        "tier": tier,
        "in_flight": member.in_flight,
        "latency_ms": round(member.latency_s * 1000, 3) if member.latency_s else None,
        "errors": _errors(member.error_share(now_s)),
        "breaker": _breaker(member.breaker, now_s),
        **verdict(member, now_s),
        "failures": [
            {"age_s": _seconds(now_s - at_s), "reason": failure, "detail": detail}
            for at_s, failure, detail in reversed(member.failures)
        ],
    }


def _errors(share: ErrorShare) -> Json:
    """Show how many of the requests of the last half minute to minute went wrong."""
    return {"count": share.errors, "of": share.ended, "share": round(share.share, 4)}


def _instance(instance: Instance) -> Json:
    return {
        "id": instance.id,
        "address": instance.authority,
        "scheme": instance.scheme,
        "status": instance.status.value,
        "weight": instance.weight,
        "tags": instance.tags,
        "zone": instance.zone,
        "priority": instance.priority,
        "held": instance.held,
    }


def _breaker(breaker: Breaker, now_s: float) -> Json:
    """Show a Breaker: its state, since when, the last failure, and how soon the next trial is.

    `withheld`: it had enough, and is closed only because too many others are shut out. `resting`:
    the instance asked to be left alone.
    """
    state, changed_at_s = breaker.state(now_s), breaker.changed_at_s
    is_closed = state is BreakerState.CLOSED
    return {
        "state": state.value,
        "since_s": None if changed_at_s is None else _seconds(now_s - changed_at_s),
        "why": breaker.last_failure if breaker.is_shut or breaker.is_withheld else None,
        "withheld": breaker.is_withheld,
        "resting": breaker.is_resting,
        "failures_in_a_row": breaker.failures_in_a_row,
        "retry_in_s": None if is_closed else _seconds(breaker.retry_at_s(now_s) - now_s),
    }


def _route(route: Route) -> Json:
    return {
        "id": route.id,
        "match": _match(route.match),
        "service": route.service or None,
        "app": route.app or None,
        "middleware": [one.use for one in route.middleware],
        "strip_prefix": route.strip_prefix,
        "add_prefix": _text(route.add_prefix),
        "preserve_host": route.preserve_host,
        "timeouts": {
            "connect_s": route.timeouts.connect_s,
            "response_s": route.timeouts.response_s,
            "idle_s": route.timeouts.idle_s,
            "tunnel_s": route.timeouts.tunnel_s,
            "request_s": route.timeouts.request_s,
            "min_rate_bytes": route.timeouts.min_rate_bytes,
        },
        "retry": _retry(route.retry),
    }


def _match(match: RouteMatch) -> Json:
    return {
        "path_prefix" if match.is_prefix else "path": _text(match.path),
        "hosts": match.hosts,
        "methods": None if match.methods is None else sorted(map(_text, match.methods)),
    }


def _retry(retry: RetryPolicy) -> Json:
    return {
        "attempts": retry.attempts,
        "statuses": sorted(retry.statuses),
        "methods": sorted(map(_text, retry.methods)),
        "buffer_bytes": retry.buffer_bytes,
    }


def _seconds(value: float) -> float:
    return round(value, 3)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
