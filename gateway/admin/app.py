"""Where the admin port shows what: one read-only Starlette app.

    /livez                 200 for as long as the loop turns; nothing else is looked at
    /readyz                200 when requests should come here, else 503 with what is missing
    /health                all in one page, for people and dashboards; 200 whatever it says
    /api/routes            the routes in use
    /api/services[/name]   the services in use, with every instance

The one rule: GET and HEAD only, everything as JSON, nothing kept by caches. There is no token: the
port belongs on loopback or in a private network, and it answers under its own names only. What may
be long is made in steps, so that requests get their turns between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import __version__
from gateway.admin import report
from gateway.admin.hosts import OwnNamesOnly
from gateway.admin.report import View
from gateway.admin.steps import Pages, Steps, all_at_once, written

_ENDPOINTS = ("/livez", "/readyz", "/health", "/api/routes", "/api/services")


class _JsonResponse(Response):
    media_type = "application/json"

    def __init__(
        self,
        content: Any,
        status_code: int = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        always = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        super().__init__(content, status_code, {**always, **(headers or {})})

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else all_at_once(written(content))


class _ProblemResponse(_JsonResponse):
    media_type = "application/problem+json"


def create_admin(
    view: View, *, hosts: Collection[str] = (), clock: Callable[[], float] = time.monotonic
) -> OwnNamesOnly:
    """Make the app of the admin port; `clock` is monotonic, and the one that `view` goes by.

    `hosts` are names under which it answers, beside addresses and localhost.
    """
    endpoints = _Endpoints(view, clock)
    shown: dict[str, Callable[[Request], Any]] = {
        "/": endpoints.index,
        "/livez": endpoints.livez,
        "/readyz": endpoints.readyz,
        "/health": endpoints.health,
        "/api/routes": endpoints.routes,
        "/api/services": endpoints.services,
        "/api/services/{name}": endpoints.service,
    }
    app = Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in shown.items()],
        exception_handlers={HTTPException: _problem, Exception: _mistake},
    )
    # A redirect would be made of the Host field, which is whatever the client says.
    app.router.redirect_slashes = False
    return OwnNamesOnly(app, hosts, _refusal)


class _Endpoints:
    """The pages. They are coroutines so that Starlette calls them on the loop, not in threads."""

    def __init__(self, view: View, clock: Callable[[], float]) -> None:
        self._view = view
        self._clock = clock
        self._pages = Pages()

    async def index(self, _request: Request) -> Response:
        return _JsonResponse({"gateway": __version__, "endpoints": _ENDPOINTS})

    async def livez(self, _request: Request) -> Response:
        return _JsonResponse("ok")

    async def readyz(self, _request: Request) -> Response:
        readiness = report.readiness(self._view)
        status = HTTPStatus.OK if readiness["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
        return _JsonResponse(readiness, status)

    async def health(self, _request: Request) -> Response:
        return await self._page("health", lambda: report.health(self._view, self._clock()))

    async def routes(self, _request: Request) -> Response:
        return await self._page("routes", lambda: report.routes(self._view))

    async def services(self, _request: Request) -> Response:
        return await self._page("services", lambda: report.services(self._view, self._clock()))

    async def service(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._view.engine.fleets:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no route goes to a service of that name")
        return await self._page(
            f"services/{name}", lambda: report.service(self._view, name, self._clock())
        )

    async def _page(self, name: str, begin: Callable[[], Steps[Any]]) -> Response:
        return _JsonResponse(await self._pages.make(name, begin))


async def _problem(_request: Request, error: Exception) -> Response:
    """Say in JSON what Starlette has to refuse: 404, and 405 with its Allow."""
    assert isinstance(error, HTTPException)
    return _refusal(error.status_code, error.detail, error.headers)


async def _mistake(_request: Request, _error: Exception) -> Response:
    """Answer for a bug; Starlette raises it again after this, so that it is logged."""
    return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "a mistake of the gateway; see the log")


def _refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return _ProblemResponse(body, status, headers)
