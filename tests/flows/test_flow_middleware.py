"""Middleware around services and apps, and the lifespan of what runs in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.config.errors import ConfigError
from gateway.core.config import RoutingConfig, ServiceConfig
from gateway.core.routing import Middleware, Route, RouteMatch
from gateway.edge.lifespan import AppStartError
from gateway.settings import load_settings
from tests.fakes.apps import puppet
from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import Serve, ask, fast_only, routes_file
from tests.fakes.peer import Peer
from tests.fakes.scenes import half_body, play, reply, reset, respond, stall
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

APPS = "tests.fakes.apps:"
ANYTHING = RouteMatch(path=b"/")


@pytest.fixture(autouse=True)
def _fresh_puppet() -> Iterator[None]:
    puppet.reset()
    yield
    puppet.reset()


def use(name: str, /, **options: Any) -> dict[str, Any]:
    """Write a middleware of `tests.fakes.apps`."""
    return {"use": APPS + name, "options": options}


def through(*middleware: object, ports: list[int], **route: Any) -> str:
    """Write a routes.yaml with one route to a service at these ports, through middleware."""
    servers = [f"http://127.0.0.1:{port}" for port in ports]
    match = {"path_prefix": "/"}
    return routes_file(
        {"web": {"servers": servers}},
        {"id": "web", "match": match, "service": "web", "middleware": middleware, **route},
    )


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Read an access log."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.mark.both_faces
async def test_middleware_sees_and_changes_both_directions_in_its_order(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = through(
            use("Adds", name="x-order", value="outer"),
            use("Adds", name="x-order", value="inner"),
            ports=[web.port],
        )
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/a%2Fb?q=1", "POST", ("X-Mine", "1"), body=b"hello"))
            answer = await client.read_response()

        (request,) = web.requests
        assert (request.method, request.target) == (b"POST", b"/a%2Fb?q=1")
        assert (bytes(request.body), request.values(b"x-mine")) == (b"hello", [b"1"])
        assert request.values(b"x-order") == [b"outer", b"inner"]
        assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert len(request.values(b"x-request-id")) == len(request.values(b"via")) == 1
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.values(b"x-order") == [b"inner", b"outer"]


@pytest.mark.parametrize(
    ("method", "body", "thinks_s"), [("POST", b"hello", 0.0), ("POST", b"", 0.3), ("GET", b"", 0.3)]
)
async def test_middleware_that_tells_the_body_again_and_again_stops_nobody(
    serve: Serve, method: str, body: bytes, thinks_s: float
) -> None:
    """It never waits for anything, so whoever asks it on without end has the loop for good."""

    async def think(_peer: Peer) -> None:
        await asyncio.sleep(thinks_s)

    async with ScriptedUpstream() as web:
        web.on_request(play(think, respond()))
        routes = through(use("Replays"), ports=[web.port])
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", method, body=body))
            answer = await client.read_response()

        (request,) = web.requests
        assert answer.status == 200
        assert bytes(request.body) == body


async def test_an_answer_that_breaks_off_looks_whole_behind_no_middleware(
    serve: Serve, tmp_path: Path
) -> None:
    """BaseHTTPMiddleware ends its answer first, and raises afterwards what was raised inside."""
    log = tmp_path / "access.log"
    async with ScriptedUpstream() as web:
        half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
        web.on_request(play(reply(half), reset()))
        routes = through(use("Times"), ports=[web.port])
        async with serve(routes, access_log=log) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            with pytest.raises(BrokenOffError):
                await client.read_response()

    (line,) = lines_of(log)
    assert line["failure"] == "upstream_broke_off"


async def test_middleware_may_answer_itself(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with ScriptedUpstream() as web:
        routes = through(use("Guard", realm="shop"), ports=[web.port])
        async with serve(routes, access_log=log) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask() + ask("/", "GET", ("Authorization", "Bearer x")))
                refused = await client.read_response()
                passed = await client.read_response()

        assert (refused.status, refused.body) == (401, b"who are you?")
        assert refused.values(b"www-authenticate") == [b'Bearer realm="shop"']
        assert passed.status == 200
        assert len(web.requests) == 1
        first, second = lines_of(log)
        assert {
            "status": 401,
            "route": "web",
            "service": "web",
            "attempts": 0,
        }.items() <= first.items()
        assert "failure" not in first
        assert {"status": 200, "attempts": 1, "instance": web.authority}.items() <= second.items()


async def test_each_request_through_middleware_leaves_one_line_with_its_attempts(
    serve: Serve, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    async with ScriptedUpstream() as down, ScriptedUpstream() as web:
        await down.refuse()
        routes = through(use("Adds"), ports=[down.port, web.port])
        async with serve(routes, access_log=log) as gateway:
            async with RawClient(gateway.port) as client:
                for _ in range(16):  # chance decides who is asked first
                    await client.send(ask("/", "POST", body=b"12345"))
                    assert (await client.read_response()).status == 200

        found = lines_of(log)
        assert [(one["bytes_in"], one["bytes_out"], one["instance"]) for one in found] == [
            (5, 2, web.authority)
        ] * 16
        assert max(one["attempts"] for one in found) == 2
        assert all(0 < one["upstream_ms"] <= one["duration_ms"] for one in found)


async def test_what_happens_to_the_proxied_request_is_named_in_the_line(
    serve: Serve, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    async with ScriptedUpstream() as web:
        web.on_request(play(half_body(), reset()))
        routes = through(use("Adds"), ports=[web.port], retry={"attempts": 1})
        async with serve(routes, access_log=log) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                with pytest.raises(BrokenOffError):
                    await client.read_response()
            assert gateway.logged("app_failed") == []

        (line,) = lines_of(log)
        assert (line["status"], line["failure"]) == (200, "upstream_broke_off")
        assert line["failed_attempts"] == [
            {"instance": web.authority, "failure": "upstream_broke_off"}
        ]


async def test_a_refusal_of_the_gateway_passes_through_middleware(
    serve: Serve, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    async with ScriptedUpstream() as down:
        await down.refuse()
        routes = through(use("Adds"), ports=[down.port])
        async with serve(routes, access_log=log) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    assert answer.values(b"x-gateway-reason") == [b"connect_failed"]
    assert (answer.status, answer.values(b"x-added")) == (502, [b"yes"])
    (line,) = lines_of(log)
    assert (line["failure"], line["status"], line["attempts"]) == ("connect_failed", 502, 1)


@pytest.mark.both_faces
@pytest.mark.parametrize("after", [False, True])
async def test_middleware_that_raises_is_500_or_cuts_the_connection(
    serve: Serve, *, after: bool
) -> None:
    async with ScriptedUpstream() as web:
        routes = through(use("Raises", after=after), ports=[web.port])
        async with serve(routes) as gateway:
            for _ in range(2):
                async with RawClient(gateway.port) as client:
                    await client.send(ask())
                    answer = await client.read_response()
                    assert answer.values(b"x-gateway-reason") == [b"app_failed"]
            await wait_until(lambda: gateway.in_flight_count == 0)
            assert len(gateway.logged("app_failed")) == 2


async def test_a_client_that_leaves_ends_what_is_inside(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with ScriptedUpstream() as web:
        web.on_request(stall())
        routes = through(use("Adds"), use("Times"), ports=[web.port])
        async with serve(routes, access_log=log) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask())
                await web.wait_until(lambda: bool(web.requests))
            await web.wait_until(lambda: not web.connections[0].is_open())
            await wait_until(lambda: gateway.in_flight_count == 0)
            assert gateway.member(web).breaker._failed == 0

        (line,) = lines_of(log)
        assert (line["status"], line["failure"]) == (499, "client_gone")
        assert line["instance"] == web.authority


async def test_large_bodies_pass_through_middleware_both_ways(serve: Serve) -> None:
    body = b"x" * (4 * 1024 * 1024)
    async with ScriptedUpstream() as web:
        web.on_request(respond(body=body))
        routes = through(use("Adds"), use("Times"), ports=[web.port])
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for _ in range(2):
                await client.send(ask("/", "POST", body=body))
                assert (await client.read_response()).body == body

        assert [len(request.body) for request in web.requests] == [len(body)] * 2


async def test_starlettes_own_middleware_works(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = through(use("Times"), ports=[web.port])
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            found = []
            for path in ("/one", "/two"):
                await client.send(ask(path, "POST", body=b"hello"))
                found.append(await client.read_response())

        assert [one.values(b"x-timed") for one in found] == [[b"/one"], [b"/two"]]
        assert [bytes(one.body) for one in web.requests] == [b"hello"] * 2


CORS = {
    "use": "starlette.middleware.cors:CORSMiddleware",
    "options": {"allow_origins": ["https://shop.example"], "allow_methods": ["POST"]},
}
PREFLIGHT = (("Origin", "https://shop.example"), ("Access-Control-Request-Method", "POST"))


@pytest.mark.both_faces
async def test_a_preflight_reaches_the_middleware_of_the_route_for_its_method(serve: Serve) -> None:
    match = {"path_prefix": "/", "methods": ["POST"]}
    async with ScriptedUpstream() as web:
        routes = through(CORS, ports=[web.port], match=match)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            found = []
            for fields in (PREFLIGHT, PREFLIGHT[:1], PREFLIGHT[1:]):
                await client.send(ask("/x", "OPTIONS", *fields))
                found.append(await client.read_response())

        assert [one.status for one in found] == [200, 405, 405]
        assert found[0].values(b"access-control-allow-origin") == [b"https://shop.example"]
        assert web.requests == []


@pytest.mark.parametrize("middleware", [[], [{"use": f"{APPS}Adds"}]])
async def test_a_preflight_that_nobody_answers_gets_to_no_instance(
    serve: Serve, middleware: list[dict[str, Any]]
) -> None:
    match = {"path_prefix": "/", "methods": ["POST"]}
    async with ScriptedUpstream() as web:
        routes = through(*middleware, ports=[web.port], match=match)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/x", "OPTIONS", *PREFLIGHT))
            answer = await client.read_response()

        assert answer.status == 405
        assert web.requests == []


@pytest.mark.parametrize(
    ("route", "rewritten", "asked"),
    [
        ({}, None, b"/api/%7Ex/a%2Fb"),
        ({"strip_prefix": True}, None, b"/~x/a%2Fb"),
        ({"strip_prefix": True, "add_prefix": "/v2"}, None, b"/v2/~x/a%2Fb"),
        ({"strip_prefix": True}, "/api/other one", b"/other%20one"),
        ({"strip_prefix": True}, "/api", b"/"),
        ({"strip_prefix": True}, "/api/api/x", b"/api/x"),
        ({"strip_prefix": True}, "/apix", b"/apix"),
        ({}, "/../../else", b"/else"),
    ],
)
async def test_the_service_gets_the_path_that_the_middleware_made(
    serve: Serve, route: dict[str, Any], rewritten: str | None, asked: bytes
) -> None:
    middleware = [use("Rewrites", path=rewritten)] if rewritten else [use("Adds")]
    async with ScriptedUpstream() as web:
        routes = through(*middleware, ports=[web.port], match={"path_prefix": "/api"}, **route)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/api/%7Ex/a%2Fb"))
            await client.read_response()

        assert [one.target for one in web.requests] == [asked.replace(b"%7E", b"~")]


@pytest.mark.parametrize(
    ("what", "target"),
    [
        ("query_string", "/?a%20HTTP/1.1%0d%0aHost:%20a%0d%0a%0d%0aGET%20/internal"),
        ("raw_path", "/a%20HTTP/1.1%0d%0aX-Injected:%20a"),
    ],
)
async def test_no_middleware_can_write_a_second_request(
    serve: Serve, what: str, target: str
) -> None:
    async with ScriptedUpstream() as web:
        routes = through(use("Decodes", what=what), ports=[web.port])
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask(target) + ask("/next"))
            answers = [await client.read_response() for _ in range(2)]

        assert [one.status for one in answers] == [400, 200]
        assert [one.target for one in web.requests] == [b"/next"]


async def test_max_forwards_is_counted_down_once(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = through(use("Adds"), ports=[web.port])
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "OPTIONS", ("Max-Forwards", "1")))
            await client.read_response()

        assert [one.values(b"max-forwards") for one in web.requests] == [[b"0"]]


@fast_only
async def test_a_client_of_http_1_0_passes_through_middleware(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = through(use("Adds"), ports=[web.port])
        async with serve(routes) as gateway:
            for host in (b"", b"Host: shop.example\r\n"):
                async with RawClient(gateway.port) as client:
                    await client.send(b"GET / HTTP/1.0\r\n%b\r\n" % host)
                    assert (await client.read_response()).status == 200

        assert [one.values(b"via") for one in web.requests] == [[b"1.0 gateway"]] * 2


async def test_a_trusted_peers_word_is_passed_on_once(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = through(use("Adds"), ports=[web.port])
        async with (
            serve(routes, trusted_proxies="127.0.0.1/32") as gateway,
            RawClient(gateway.port) as client,
        ):
            told = (("X-Forwarded-For", "192.0.2.7"), ("X-Request-Id", "mine"))
            await client.send(ask("/", "GET", *told))
            await client.read_response()

        (request,) = web.requests
        assert request.values(b"x-forwarded-for") == [b"192.0.2.7, 127.0.0.1"]
        assert request.values(b"x-request-id") == [b"mine"]


# --- Lifespan ------------------------------------------------------------------------------------


def two_routes_to_the_puppet(**route: Any) -> str:
    """Write a routes.yaml with one app on two routes."""
    to_app = {"app": APPS + "puppet", **route}
    return routes_file({}, *({"match": {"path_prefix": at}, **to_app} for at in ("/a", "/b")))


async def test_an_app_starts_once_and_its_state_is_seen_on_all_its_routes(serve: Serve) -> None:
    async with serve(two_routes_to_the_puppet(middleware=[use("Adds")])) as gateway:
        async with RawClient(gateway.port) as client:
            for path in ("/a", "/b"):
                await client.send(ask(path))
                await client.read_response()
        assert puppet.lifespan == ["lifespan.startup"]

    assert puppet.lifespan == ["lifespan.startup", "lifespan.shutdown"]
    assert [one["state"] for one in puppet.scopes] == [{"started": "by its lifespan"}] * 2
    assert puppet.scopes[0]["state"] is not puppet.scopes[1]["state"]


def quiet_settings(tmp_path: Path, routes: str) -> dict[str, object]:
    """Write the routes; give the settings of a gateway that is never served."""
    (tmp_path / "routes.yaml").write_text(routes, encoding="utf-8")
    return {
        "config": tmp_path / "routes.yaml",
        "registry": "static",
        "state_dir": "off",
        "access_log": "off",
    }


async def test_an_app_that_cannot_start_stops_the_gateway(tmp_path: Path) -> None:
    puppet.start_problem = "no database"
    gateway = create_app(load_settings(quiet_settings(tmp_path, two_routes_to_the_puppet())))

    with pytest.raises(AppStartError, match=r"'a'.*no database"):
        async with gateway.running():
            raise AssertionError("it runs")


async def test_under_asgi_the_server_is_told_why_it_cannot_start(tmp_path: Path) -> None:
    puppet.start_problem = "no database"
    gateway = create_app(load_settings(quiet_settings(tmp_path, two_routes_to_the_puppet())))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await gateway({"type": "lifespan"}, receive, send)

    assert sent == [
        {
            "type": "lifespan.startup.failed",
            "message": "the app of route 'a' could not start: no database",
        }
    ]


def test_middleware_that_cannot_be_made_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    routes = through(use("refuses_to_be_made"), ports=[1])

    with pytest.raises(ConfigError) as refused:
        create_app(load_settings(quiet_settings(tmp_path, routes)))

    assert str(refused.value) == (
        f"{tmp_path / 'routes.yaml'}: route 'web': tests.fakes.apps:refuses_to_be_made: "
        "ValueError: no such file"
    )


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (Route(id="a", match=ANYTHING, app="nowhere:app"), "route 'a': there is no module"),
        (
            Route(id="a", match=ANYTHING, service="web", middleware=(Middleware(use="json:no"),)),
            "route 'a': json has no 'no'",
        ),
    ],
)
def test_routes_that_come_from_no_file_are_looked_at_too(route: Route, reason: str) -> None:
    services = {"web": ServiceConfig(name="web")} if route.service else {}
    config = RoutingConfig(routes=(route,), services=services)

    with pytest.raises(ConfigError, match=reason):
        create_app(load_settings({"access_log": "off"}), config)
