"""Apps and middleware of routes in this process: made once at load, started and stopped with it.

An app that several routes name is one app, with one lifespan and one state. The one rule: nothing
is imported or made for a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gateway.core.routing import Middleware, Route
from gateway.edge.app_exchange import AppExchange
from gateway.edge.asgi import AsgiApp, Receive, Scope, Send
from gateway.edge.lifespan import AppStartError, Lifespan, answer_lifespan
from gateway.edge.pinned import PinnedFace
from gateway.imports import ImportNameError, load_app, load_middleware
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.phase import Phase
from gateway.proxy.pool import Spawn
from gateway.proxy.target import Target

# So that what is inside of middleware is late first, and can say whose fault it is.
_SLACK_S = 1.0


class MountError(Exception):
    """A route whose app or middleware cannot be made; says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """What answers a route in this process, and for how long it may take to.

    All times are seconds: until the head, between two pieces, and in all; `clock` is monotonic.
    """

    target: Target
    app: AsgiApp
    state: dict[str, Any]
    spawn: Spawn
    clock: Callable[[], float]
    response_s: float
    idle_s: float
    request_s: float


@dataclass(slots=True)
class _Shared:
    """An app that is named by one route or more."""

    app: AsgiApp
    state: dict[str, Any] = field(default_factory=dict)
    is_started: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is for the app; it starts once, however many routes it is on."""
        if scope["type"] != "lifespan" or not self.is_started:
            self.is_started = self.is_started or scope["type"] == "lifespan"
            await self.app(scope, receive, send)
        else:
            await answer_lifespan(receive, send)


class Mounts:
    """Makes what answers in this process, and owns it; `mounted` has it by Target.

    `spawn` runs what a request needs, `clock` is monotonic.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        spawn: Spawn,
        clock: Callable[[], float],
        client_body_timeout_s: float,
    ) -> None:
        self._engine = engine
        self._spawn = spawn
        self._clock = clock
        self._client_body_timeout_s = client_body_timeout_s
        self._apps: dict[str, _Shared] = {}
        self._lifespans: list[Lifespan] = []
        self.mounted: dict[Target, Mounted] = {}

    def mount(self, target: Target) -> None:
        """Let the route of this Target be answered here; raises MountError."""
        route = target.route
        innermost, state = self._innermost(target)
        app = innermost
        for middleware in reversed(route.middleware):
            app = _made(middleware, app, route)
        mounted = self._mounted_at(target, app, state)
        self._lifespans.append(Lifespan(f"route {route.id!r}", app, state))
        self.mounted[target] = mounted
        target.in_process = partial(_take_over, mounted)

    def mount_app(self, app: AsgiApp, target: Target) -> None:
        """Let the route of this Target be answered by an app that needs no lifespan."""
        target.in_process = partial(_take_over, self._mounted_at(target, app, {}))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all apps, and stop them in the end in the other order; raises AppStartError."""
        if not self._lifespans:
            yield
            return
        problem = None
        async with asyncio.TaskGroup() as tasks:
            started: list[tuple[Lifespan, asyncio.Task[None]]] = []
            try:
                for lifespan in self._lifespans:
                    task = tasks.create_task(lifespan.run(), name=f"lifespan:{lifespan.name}")
                    started.append((lifespan, task))
                    if reason := await lifespan.start():
                        problem = f"the app of {lifespan.name} could not start: {reason}"
                        break
                else:
                    yield
            finally:
                for lifespan, task in reversed(started):
                    await lifespan.stop()
                    task.cancel()
        if problem is not None:
            raise AppStartError(problem)

    def _innermost(self, target: Target) -> tuple[AsgiApp, dict[str, Any]]:
        """Give the app inside of all middleware, and the state of its lifespan."""
        name = target.route.app
        if not name:
            make_target = partial(self._target, target)
            return PinnedFace(self._engine, make_target, target.route, self._spawn), {}
        if name not in self._apps:
            try:
                self._apps[name] = _Shared(load_app(name))
            except ImportNameError as error:
                raise MountError(f"route {target.route.id!r}: {error}") from error
        shared = self._apps[name]
        return shared, shared.state

    def _target(self, target: Target, route: Route) -> Target:
        return Target(
            route,
            target.fleet,
            self._engine.loads,
            client_body_timeout_s=self._client_body_timeout_s,
        )

    def _mounted_at(self, target: Target, app: AsgiApp, state: dict[str, Any]) -> Mounted:
        response_s, idle_s, request_s = target.response_s, target.idle_s, target.request_s
        if not target.route.app:
            a_try_s = target.connect_s + target.response_s + target.route.retry.max_backoff_s
            response_s = target.queue_s + target.attempts * a_try_s + _SLACK_S
            idle_s, request_s = idle_s + _SLACK_S, request_s + _SLACK_S
        return Mounted(
            target=target,
            app=app,
            state=state,
            spawn=self._spawn,
            clock=self._clock,
            response_s=response_s,
            idle_s=idle_s,
            request_s=request_s,
        )


def _made(middleware: Middleware, app: AsgiApp, route: Route) -> AsgiApp:
    try:
        make = load_middleware(middleware.use, middleware.options)
        made: AsgiApp = make(app, **middleware.options)
    except ImportNameError as error:
        raise MountError(f"route {route.id!r}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise MountError(f"route {route.id!r}: {middleware.use}: {reason}") from error
    return made


def _take_over(mounted: Mounted, begun: Exchange, now_s: float) -> None:
    """Go on with a request whose route is answered here, in the place of its Exchange."""
    begun.phase = Phase.SETTLED
    begun.engine.deadlines.watched.discard(begun)
    exchange = AppExchange(begun, mounted)
    begun.client.hand_over(exchange)
    exchange.begin(now_s)
