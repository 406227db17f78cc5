"""A fast face for an app of the gateway itself, such as that of the admin port.

The app stands on an engine of its own, with one route and no service. So it has every limit that
clients have elsewhere (heads, bodies, times, connections, back-pressure), and what clients do there
takes nothing of the limits here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.model import Instance
from gateway.core.policy import Timeouts
from gateway.core.routing import Route, RouteMatch
from gateway.edge.asgi import AsgiApp
from gateway.edge.face import FaceOptions
from gateway.edge.fast import FastFace
from gateway.edge.mounts import Mounts
from gateway.edge.peers import Peers
from gateway.proxy.ending import Ending
from gateway.proxy.engine import Engine
from gateway.proxy.pool import Spawn
from gateway.proxy.sides import ConnectionPool

_MAX_BODY_BYTES = 64 * 1024
_MOST_BESIDE = 2
_BODY_TIMEOUT_S = 10.0
_TIMEOUTS = Timeouts(response_s=15.0, idle_s=10.0, request_s=60.0)


def face_of_app(  # noqa: PLR0913 -- they are all different things
    app: AsgiApp,
    *,
    name: str,
    beside: FastFace,
    clock: Callable[[], float],
    wall_clock: Callable[[], float],
    spawn: Spawn,
) -> FastFace:
    """Make the face; its limits are those of the face `beside` it, but `max_beside` connections.

    `spawn` runs each request, `clock` is monotonic. The app has no lifespan, and its requests are
    not logged.
    """
    engine = Engine(
        _no_pool,
        random=beside.engine.random,
        wall_clock=wall_clock,
        observer=_Nobody(),
        deadlines=beside.engine.deadlines,
    )
    mounts = Mounts(engine, spawn=spawn, clock=clock, client_body_timeout_s=_BODY_TIMEOUT_S)
    route = Route(
        id=name,
        match=RouteMatch(path=b"/"),
        app=name,
        max_body_bytes=_MAX_BODY_BYTES,
        upgrade=frozenset(),
        timeouts=_TIMEOUTS,
    )
    engine.use(
        RoutingConfig(routes=(route,), services={}),
        client_body_timeout_s=_BODY_TIMEOUT_S,
        mount=partial(mounts.mount_app, app),
    )
    own_options = FaceOptions(
        head_timeout_s=beside.options.head_timeout_s,
        keepalive_timeout_s=beside.options.keepalive_timeout_s,
        max_connections=beside.options.max_beside,
        max_beside=_MOST_BESIDE,
        grace_s=inf,
        reader=beside.options.reader,
    )
    return FastFace(engine, Peers(()), own_options)


def _no_pool(_service: ServiceConfig, _instance: Instance) -> ConnectionPool:
    raise AssertionError("an app of the gateway has no instances")


class _Nobody:
    """An Observer that notes nothing: whoever asks after the health is no traffic."""

    def settled(self, exchange: Ending, now_s: float) -> None:
        pass

    def breaker_changed(self, service: str, member: object, now_s: float) -> None:
        pass
