"""Models to values of the core: nothing of pydantic goes further than this module.

Policies are merged key by key: the route's own, then its service's, then the defaults of the file,
then those of `gateway.core.policy`.
"""

from __future__ import annotations

from operator import attrgetter
from types import MappingProxyType
from typing import Any

from gateway.config.ids import complete_ids
from gateway.config.models import (
    BreakerEntry,
    DefaultsEntry,
    InstanceEntry,
    MatchEntry,
    RouteEntry,
    RoutesFile,
    ServiceEntry,
    TlsEntry,
)
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Instance
from gateway.core.policy import BreakerPolicy, RetryPolicy, Timeouts, TlsPolicy
from gateway.core.routing import Route, RouteMatch


def compile_routes(file: RoutesFile) -> RoutingConfig:
    """Merge and freeze all of a file that was found to be right."""
    ids = complete_ids(
        [route.id for route in file.routes], [compile_match(route.match) for route in file.routes]
    )
    routes = tuple(_route(file, entry, id_) for entry, id_ in zip(file.routes, ids, strict=True))
    services = {route.service: _service(file, route.service) for route in file.routes}
    return RoutingConfig(routes=routes, services=MappingProxyType(services))


def compile_match(entry: MatchEntry) -> RouteMatch:
    """Make the core's match; the model has seen to it that there is one kind of path."""
    return RouteMatch(
        path=entry.path_prefix or entry.path or b"",
        is_prefix=entry.path_prefix is not None,
        hosts=entry.hosts or (),
        methods=frozenset(entry.methods) if entry.methods is not None else None,
    )


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
    )


def merged_breaker(defaults: BreakerEntry, own: BreakerEntry) -> BreakerPolicy:
    """Merge what the defaults and a service say of the breaker over the core's own policy."""
    return BreakerPolicy(**(defaults.overrides() | own.overrides()))


def merged_tls(defaults: TlsEntry, own: TlsEntry) -> TlsPolicy:
    """Merge what the defaults and a service say of TLS; files are named as the file does."""
    return TlsPolicy(**(defaults.overrides() | own.overrides()))


def _service(file: RoutesFile, name: str) -> ServiceConfig:
    entry = file.services.get(name, ServiceEntry())
    instances = None
    if entry.servers is not None:
        instances = tuple(sorted(map(compile_instance, entry.servers), key=attrgetter("key")))
    return ServiceConfig(
        name=name,
        instances=instances,
        breaker=merged_breaker(file.defaults.circuit_breaker, entry.circuit_breaker),
        tls=merged_tls(file.defaults.tls, entry.tls),
    )


def _route(file: RoutesFile, entry: RouteEntry, id_: str) -> Route:
    wider = (file.defaults, file.services.get(entry.service, ServiceEntry()))
    timeouts: dict[str, Any] = {}
    retry: dict[str, Any] = {}
    for place in (*wider, entry):
        timeouts |= place.timeouts.overrides()
        retry |= place.retry.overrides()
    return Route(
        id=id_,
        match=compile_match(entry.match),
        service=entry.service,
        strip_prefix=entry.strip_prefix,
        add_prefix=entry.add_prefix,
        **_switches(file.defaults, entry),
        timeouts=Timeouts(**timeouts),
        retry=RetryPolicy(**retry),
    )


def _switches(defaults: DefaultsEntry, entry: RouteEntry) -> dict[str, Any]:
    """Merge what is set key by key but belongs to no policy; what nobody set is left out."""
    found: dict[str, Any] = {}
    for place in (defaults, entry):
        said = {
            "preserve_host": place.preserve_host,
            "max_body_bytes": place.max_body,
            "upgrade": None if place.upgrade is None else frozenset(place.upgrade),
        }
        found |= {name: value for name, value in said.items() if value is not None}
    return found


# The default of the key, taken from where it lives.
PRESERVE_HOST = Route(id="", match=RouteMatch(path=b"/"), service="").preserve_host
