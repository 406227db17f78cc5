"""The admin port says how things are, and changes nothing."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_file, routes_to
from tests.fakes.scenes import app, hold, play, respond
from tests.fakes.upstream import ScriptedUpstream


async def test_it_is_ready_once_every_routed_service_was_heard_of(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway:
            answer = await gateway.admin("GET", "/readyz")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


async def test_it_is_alive_but_not_ready_while_the_registry_has_told_nothing(serve: Serve) -> None:
    routes = routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"})
    nowhere = "http://127.0.0.1:9"
    async with serve(routes, registry="consul", consul_address=nowhere) as gateway:
        readiness = await gateway.ask_admin("/readyz")
        alive = await gateway.ask_admin("/livez")
        health = await gateway.ask_admin("/health")

    assert readiness["ready"] is False
    assert alive == "ok"
    assert health["config"]["sha256"] == hashlib.sha256(routes.encode()).hexdigest()
    assert health["status"] == "down"
    assert health["registries"][0]["name"] == "consul"


async def test_what_is_in_flight_is_shown(serve: Serve) -> None:
    may_answer = asyncio.Event()
    async with ScriptedUpstream() as web:
        web.on_request(play(hold(may_answer), respond()))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            await web.wait_until(lambda: bool(web.requests))
            during = (await gateway.ask_admin("/api/services/web"))["instances"]
            may_answer.set()
            await client.read_response()
            after = (await gateway.ask_admin("/api/services/web"))["instances"]

        assert [(one["address"], one["in_flight"]) for one in during] == [(web.authority, 1)]
        assert [(one["address"], one["in_flight"]) for one in after] == [(web.authority, 0)]


@pytest.mark.parametrize(("method", "status"), [("GET", 500), ("POST", 500), ("POST", 503)])
async def test_a_service_that_answers_half_of_all_requests_with_errors_is_degraded(
    serve: Serve, method: str, status: int
) -> None:
    """No Breaker opens for a 500, and for a 503 only at half of them."""
    async with ScriptedUpstream() as web:
        web.on_request(app(lambda request: respond(status if request.target == b"/bad" else 200)))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            for number in range(10):
                await client.send(ask("/bad" if number % 2 else "/good", method, body=b""))
                await client.read_response()
            health = await gateway.ask_admin("/health")
            (one,) = (await gateway.ask_admin("/api/services/web"))["instances"]

    assert health["status"] == health["services"]["web"]["status"] == "degraded"
    assert health["services"]["web"]["errors"]["count"] == 5
    assert one["errors"] == health["services"]["web"]["errors"]
    assert one["errors"]["of"] <= 10
    assert one["failures"][0]["detail"] == f"the instance answered {status}"
    assert one["breaker"]["state"] == "closed"


async def test_the_routes_in_use_are_shown(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(
            web,
            match={"path_prefix": "/api", "methods": ["POST", "GET"], "hosts": ["shop.example"]},
            id="shop",
            strip_prefix=True,
            timeouts={"response": "1s"},
        )
        async with serve(routes) as gateway:
            (route,) = await gateway.ask_admin("/api/routes")

    assert route["id"] == "shop"
    assert route["match"] == {
        "path_prefix": "/api",
        "hosts": ["shop.example"],
        "methods": ["GET", "POST"],
    }
    assert (route["service"], route["strip_prefix"]) == ("web", True)
    assert route["timeouts"]["response_s"] == 1.0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/api/services/nobody", 404), ("POST", "/health", 405)],
)
async def test_what_it_does_not_have_is_a_problem_in_json(
    serve: Serve, method: str, path: str, status: int
) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway:
            answer = await gateway.admin(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


async def test_its_pages_are_not_on_the_clients_port(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api/shop"})
        statuses = []
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for path in ("/health", "/readyz", "/livez", "/api/routes", "/api/services"):
                await client.send(ask(path))
                statuses.append((await client.read_response()).status)

    assert statuses == [404] * 5
