"""Models to values of the core: nothing of pydantic goes further than this module.

Policies are merged key by key: the route's own, then its service's, then the defaults of the file,
then those of `gateway.core.policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from gateway.config.balancing import merged_balancing
from gateway.config.ids import complete_ids
from gateway.config.limits import Limits
from gateway.config.models import (
    DefaultsEntry,
    InstanceEntry,
    MatchEntry,
    MiddlewareEntry,
    RouteEntry,
    RoutesFile,
    ServiceEntry,
)
from gateway.config.policies import BreakerEntry, PathsEntry, TlsEntry
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Instance
from gateway.core.policy import (
    BreakerPolicy,
    ConcurrencyPolicy,
    HealthCheckPolicy,
    PathPolicy,
    RetryPolicy,
    Timeouts,
    TlsPolicy,
)
from gateway.core.routing import Middleware, Route, RouteMatch
from gateway.core.units import format_duration


def compile_routes(file: RoutesFile) -> RoutingConfig:
    """Merge and freeze all of a file that was found to be right."""
    ids = complete_ids(
        [route.id for route in file.routes], [compile_match(route.match) for route in file.routes]
    )
    routes = tuple(_route(file, entry, id_) for entry, id_ in zip(file.routes, ids, strict=True))
    names = dict.fromkeys(route.service for route in routes if route.service)
    services = {name: _service(file, name) for name in names}
    return RoutingConfig(
        routes=routes, services=MappingProxyType(services), paths=compile_paths(file.paths)
    )


def compile_match(entry: MatchEntry) -> RouteMatch:
    """Make the core's match; the model has seen to it that there is one kind of path."""
    return RouteMatch(
        path=entry.path_prefix or entry.path or b"",
        is_prefix=entry.path_prefix is not None,
        hosts=entry.hosts or (),
        methods=frozenset(entry.methods) if entry.methods is not None else None,
    )


def compile_paths(entry: PathsEntry) -> PathPolicy:
    """Put what the file says of paths over the core's own policy."""
    return PathPolicy(**entry.overrides())


def compile_instance(entry: InstanceEntry) -> Instance:
    """Make the instance that a configured URL stands for; its address is its identity."""
    url = entry.url
    unnamed = Instance(key="", id="", host=url.host, port=url.port)
    return Instance(
        key=f"static/{unnamed.authority}",
        id=unnamed.authority,
        host=url.host,
        port=url.port,
        scheme=url.scheme,
        weight=entry.weight,
        zone=entry.zone,
    )


def merged_breaker(defaults: BreakerEntry, own: BreakerEntry) -> BreakerPolicy:
    """Merge what the defaults and a service say of the breaker over the core's own policy."""
    return BreakerPolicy(**(defaults.overrides() | own.overrides()))


def merged_tls(defaults: TlsEntry, own: TlsEntry) -> TlsPolicy:
    """Merge what the defaults and a service say of TLS; files are named as the file does."""
    return TlsPolicy(**(defaults.overrides() | own.overrides()))


def _first(own: ServiceEntry, defaults: DefaultsEntry, key: str) -> Any:
    said = getattr(own, key)
    return getattr(defaults, key) if said is None else said


def _service(file: RoutesFile, name: str) -> ServiceConfig:
    entry = file.services.get(name, ServiceEntry())
    instances = None
    if entry.servers is not None:
        instances = tuple(sorted(map(compile_instance, entry.servers), key=attrgetter("key")))
    return ServiceConfig(
        name=name,
        instances=instances,
        breaker=merged_breaker(file.defaults.circuit_breaker, entry.circuit_breaker),
        balancing=merged_balancing(file.defaults, entry),
        limit=merged_limits(file.defaults, entry),
        max_per_instance=_first(entry, file.defaults, "max_concurrency_per_instance"),
        max_connections=_first(entry, file.defaults, "max_connections"),
        max_tunnels=_first(entry, file.defaults, "max_tunnels"),
        tls=merged_tls(file.defaults.tls, entry.tls),
        tags=frozenset(entry.tags or ()),
        datacenters=entry.datacenters or (),
        health_check=_health_check(entry),
    )


def _health_check(entry: ServiceEntry) -> HealthCheckPolicy | None:
    check = entry.health_check
    return None if check is None else HealthCheckPolicy(**check.overrides())


def _route(file: RoutesFile, entry: RouteEntry, id_: str) -> Route:
    wider = (file.defaults, file.services.get(entry.service or "", ServiceEntry()))
    timeouts: dict[str, Any] = {}
    retry: dict[str, Any] = {}
    for place in (*wider, entry):
        timeouts |= place.timeouts.overrides()
        retry |= place.retry.overrides()
    return Route(
        id=id_,
        match=compile_match(entry.match),
        service=entry.service or "",
        app=entry.app or "",
        middleware=tuple(map(_middleware, entry.middleware)),
        strip_prefix=entry.strip_prefix,
        add_prefix=entry.add_prefix,
        **_switches(file.defaults, entry),
        timeouts=Timeouts(**timeouts),
        retry=RetryPolicy(**retry),
        # The limits of the defaults are for services, not for each of their routes.
        max_tunnels=entry.max_tunnels,
        limit=merged_limits(file.defaults.model_copy(update={"max_concurrency": None}), entry),
    )


def _middleware(entry: MiddlewareEntry) -> Middleware:
    return Middleware(use=entry.use, options=MappingProxyType(entry.options))


def merged_limits(*places: Limits) -> ConcurrencyPolicy:
    """Merge what each place says of limits, the narrowest last."""
    found: dict[str, Any] = {}
    for place in places:
        said: dict[str, Any] = {"queue": place.max_queue, "queue_wait_s": place.max_queue_wait}
        if place.max_concurrency is not None:
            found["is_adaptive"] = place.max_concurrency == "auto"
            found["limit"] = None if place.max_concurrency == "auto" else place.max_concurrency
        found |= {name: value for name, value in said.items() if value is not None}
    return ConcurrencyPolicy(**found)


def _switches(defaults: DefaultsEntry, entry: RouteEntry) -> dict[str, Any]:
    """Merge what is set key by key but belongs to no policy; what nobody set is left out."""
    found: dict[str, Any] = {}
    for place in (defaults, entry):
        said = {
            "preserve_host": place.preserve_host,
            "max_body_bytes": place.max_body,
            "upgrade": _set_of(place.upgrade),
            "deadline_header": place.deadline_header,
            "removed_fields": _set_of(place.remove_request_fields),
            "priority_class": place.priority_class if isinstance(place, RouteEntry) else None,
        }
        found |= {name: value for name, value in said.items() if value is not None}
    if entry.app:
        found["upgrade"] = frozenset(entry.upgrade or ())  # apps ask for WebSockets by name
    elif entry.middleware:
        found["upgrade"] = frozenset()  # only HTTP passes through to a service
    return found


def _set_of(names: tuple[bytes, ...] | None) -> frozenset[bytes] | None:
    return None if names is None else frozenset(names)


# The defaults of keys that belong to no policy of their own, taken from where they live.
PLAIN_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "preserve_host": Route(id="", match=RouteMatch(path=b"/")).preserve_host,
        "max_queue": ConcurrencyPolicy().queue,
        "max_queue_wait": format_duration(ConcurrencyPolicy().queue_wait_s),
    }
)
