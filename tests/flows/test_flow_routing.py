"""A request goes where the most specific route says, with the path and Host that it says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Face, Serve, routes_file, routes_to
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream


def get(path: str, host: str = "shop.example", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def service(upstream: ScriptedUpstream) -> dict[str, object]:
    return {"servers": [upstream.url]}


async def test_the_longest_prefix_of_whole_segments_wins(serve: Serve) -> None:
    async with ScriptedUpstream() as users, ScriptedUpstream() as site:
        users.on_request(respond(body=b"users"))
        site.on_request(respond(body=b"site"))
        routes = routes_file(
            {"users": service(users), "site": service(site)},
            {"match": {"path_prefix": "/"}, "service": "site"},
            {"match": {"path_prefix": "/api/users"}, "service": "users"},
        )
        answers = {}
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for path in ("/api/users", "/api/users/42", "/api/usersx", "/api", "/"):
                await client.send(get(path))
                answers[path] = (await client.read_response()).body

    assert answers == {
        "/api/users": b"users",
        "/api/users/42": b"users",
        "/api/usersx": b"site",
        "/api": b"site",
        "/": b"site",
    }


@pytest.mark.parametrize(
    ("route", "asked", "sent"),
    [
        ({"strip_prefix": True}, "/api/users/42?x=1", b"/42?x=1"),
        ({"strip_prefix": True}, "/api/users", b"/"),
        ({"add_prefix": "/v2"}, "/api/users/42", b"/v2/api/users/42"),
        ({"strip_prefix": True, "add_prefix": "/v2"}, "/api/users/42", b"/v2/42"),
        ({}, "/api/./users/../users/%41", b"/api/users/A"),
    ],
    ids=["strip", "strip-all", "add", "strip-and-add", "normal-form"],
)
async def test_the_path_is_rewritten_as_the_route_says(
    serve: Serve, route: dict[str, Any], asked: str, sent: bytes
) -> None:
    async with ScriptedUpstream() as users:
        routes = routes_to(users, match={"path_prefix": "/api/users"}, **route)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(get(asked))
            await client.read_response()

        assert [sent] == [request.target for request in users.requests]


async def test_hosts_choose_the_route_whatever_their_case_and_port(serve: Serve) -> None:
    async with ScriptedUpstream() as shop, ScriptedUpstream() as any_shop:
        shop.on_request(respond(body=b"shop"))
        any_shop.on_request(respond(body=b"wildcard"))
        routes = routes_file(
            {"shop": service(shop), "any": service(any_shop)},
            {"match": {"path_prefix": "/", "hosts": ["shop.example"]}, "service": "shop"},
            {"match": {"path_prefix": "/", "hosts": ["*.example"]}, "service": "any"},
        )
        answers = []
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for host in ("SHOP.example:8080", "other.example", "elsewhere.test"):
                await client.send(get("/", host))
                answer = await client.read_response()
                answers.append((answer.status, answer.body[:8]))

    assert answers[:2] == [(200, b"shop"), (200, b"wildcard")]
    assert answers[2][0] == 404


async def test_a_method_that_no_route_takes_gets_405_with_those_that_are_taken(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as orders:
        routes = routes_to(orders, match={"path_prefix": "/orders", "methods": ["POST", "PUT"]})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(get("/orders/1", method="DELETE"))
            answer = await client.read_response()

        assert answer.status == 405
        assert answer.values(b"allow") == [b"POST, PUT"]
        assert orders.requests == []


async def test_routes_that_name_methods_share_a_path(serve: Serve) -> None:
    async with ScriptedUpstream() as reading, ScriptedUpstream() as writing:
        reading.on_request(respond(body=b"reading"))
        writing.on_request(respond(body=b"writing"))
        routes = routes_file(
            {"reading": service(reading), "writing": service(writing)},
            {"match": {"path_prefix": "/"}, "service": "reading"},
            {"match": {"path_prefix": "/", "methods": ["DELETE"]}, "service": "writing"},
        )
        bodies = []
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for method in ("GET", "DELETE"):
                await client.send(get("/", method=method))
                bodies.append((await client.read_response()).body)

    assert bodies == [b"reading", b"writing"]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_the_instance_gets_the_clients_host_or_its_own_name(
    serve: Serve, *, is_kept: bool
) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, preserve_host=is_kept)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(get("/"))
            await client.read_response()

        sent = web.requests[0]
        assert sent.values(b"host") == [b"shop.example" if is_kept else web.authority.encode()]
        assert sent.values(b"x-forwarded-host") == [b"shop.example"]


@pytest.mark.both_faces
async def test_an_absolute_target_names_the_host(serve: Serve, face: Face) -> None:
    """RFC 9112 §3.2.2. Under ASGI the server takes the target apart, and Host is what counts."""
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/", "hosts": ["shop.example"]})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            host = "other.example" if face == "fast" else "shop.example"
            await client.send(get("http://shop.example/cart?x", host))
            answer = await client.read_response()

        assert answer.status == 200
        assert web.requests[0].target == b"/cart?x"
        assert web.requests[0].values(b"host") == [b"shop.example"]
