"""Instances and the log learn who asked: from those whom we believe, and else from what we saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.peer import ReceivedRequest
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream

TRUSTING = {"trusted_proxies": "127.0.0.0/8, 10.0.0.0/8"}
ONLY_OTHERS = {"trusted_proxies": "10.0.0.0/8"}
CHAIN = (
    ("X-Forwarded-For", "6.6.6.6, 198.51.100.7"),
    ("x-forwarded-for", "10.0.0.9"),
    ("X-Real-Ip", "6.6.6.6"),
    ("X_Forwarded_For", "7.7.7.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Host", "www.example.com"),
    ("X-Forwarded-Prefix", "/shop"),
    ("X-Request-Id", "outer-1"),
    ("Forwarded", "for=198.51.100.7;proto=https"),
)
NAMES = (
    *(b"x-forwarded-for", b"x-real-ip", b"x-forwarded-proto", b"x-forwarded-port"),
    *(b"x-forwarded-host", b"x-forwarded-prefix", b"forwarded", b"via", b"x_forwarded_for"),
)
# Middleware stands between the client and the instance, and changes nothing of who they are.
AT_ANY_ROUTE = pytest.mark.parametrize(
    "route",
    [{}, {"middleware": [{"use": "tests.fakes.apps:Adds"}]}],
    ids=["plain", "middleware"],
)


def told(request: ReceivedRequest) -> dict[str, str]:
    """List what an instance learned; a field that stands twice shows as a list."""
    found = {name: b" AND ".join(request.values(name)) for name in NAMES}
    return {name.decode(): value.decode() for name, value in found.items() if value}


async def told_after(
    serve: Serve, *fields: tuple[str, str], route: dict[str, Any], **settings: object
) -> tuple[dict[str, str], int]:
    """Send these fields; tell what the instance learned, and the port that was asked."""
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"}, **route)
        async with serve(routes, **settings) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/api/x", "GET", *fields))
            assert 200 == (await client.read_response()).status
        return told(web.requests[0]), gateway.port


@pytest.mark.parametrize("fields", [(), CHAIN], ids=["says nothing", "forges all"])
@AT_ANY_ROUTE
async def test_of_a_stranger_only_what_was_seen_is_told(
    serve: Serve, fields: tuple[tuple[str, str], ...], route: dict[str, Any]
) -> None:
    route = {**route, "strip_prefix": True}
    found, port = await told_after(serve, *fields, route=route, **ONLY_OTHERS)

    assert found == {
        "x-forwarded-for": "127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-port": str(port),
        "x-forwarded-host": "shop.example",
        "x-forwarded-prefix": "/api",
        "via": "1.1 gateway",
    }


@pytest.mark.both_faces
@AT_ANY_ROUTE
async def test_a_trusted_peer_is_believed_from_the_right(
    serve: Serve, route: dict[str, Any]
) -> None:
    route = {**route, "strip_prefix": True}
    found, _ = await told_after(serve, *CHAIN, route=route, **TRUSTING)

    assert found == {
        "x-forwarded-for": "6.6.6.6, 198.51.100.7, 10.0.0.9, 127.0.0.1",
        "x-real-ip": "198.51.100.7",
        "x-forwarded-proto": "https",
        "x-forwarded-port": "8443",
        "x-forwarded-host": "www.example.com",
        "x-forwarded-prefix": "/shop/api",
        "forwarded": "for=198.51.100.7;proto=https",
        "via": "1.1 gateway",
    }


@AT_ANY_ROUTE
@pytest.mark.parametrize("chain", ["unknown", "198.51.100.7, unknown"])
async def test_an_entry_that_is_no_address_ends_the_walk(
    serve: Serve, route: dict[str, Any], chain: str
) -> None:
    found, _ = await told_after(serve, ("X-Forwarded-For", chain), route=route, **TRUSTING)

    assert f"{chain}, 127.0.0.1" == found["x-forwarded-for"]
    assert "127.0.0.1" == found["x-real-ip"]


@AT_ANY_ROUTE
async def test_forwarded_is_replaced_for_a_stranger_and_appended_to_for_a_trusted_peer(
    serve: Serve, route: dict[str, Any]
) -> None:
    own = 'for=127.0.0.1;proto=http;host="shop.example"'

    found, _ = await told_after(serve, *CHAIN, route=route, forwarded="on")
    assert own == found["forwarded"]
    found, _ = await told_after(serve, *CHAIN, route=route, forwarded="on", **TRUSTING)
    assert f"for=198.51.100.7;proto=https, {own}" == found["forwarded"]


@pytest.mark.both_faces
@pytest.mark.parametrize(
    ("settings", "client"), [(TRUSTING, "198.51.100.7"), (ONLY_OTHERS, "127.0.0.1")]
)
async def test_the_log_names_the_client_that_is_believed(
    serve: Serve, tmp_path: Path, settings: dict[str, object], client: str
) -> None:
    log = tmp_path / "access.log"
    await told_after(serve, *CHAIN, route={}, access_log=log, **settings)

    assert client == json.loads(log.read_text(encoding="utf-8"))["client"]


# --- The id in the response ----------------------------------------------------------------------


@pytest.mark.both_faces
@AT_ANY_ROUTE
@pytest.mark.parametrize("mine", [None, "outer-1"], ids=["made here", "of a trusted peer"])
async def test_each_response_has_the_id_that_its_instance_got(
    serve: Serve, route: dict[str, Any], mine: str | None
) -> None:
    fields = () if mine is None else (("X-Request-Id", mine),)
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"}, **route)
        async with serve(routes, **TRUSTING) as gateway, RawClient(gateway.port) as client:
            answers = []
            for target in ("/api/x", "/nowhere", "/api/y"):
                await client.send(ask(target, "GET", *fields))
                answers.append((await client.read_response()).values(b"x-request-id"))

    ids = [request.values(b"x-request-id") for request in web.requests]
    assert [answers[0], answers[2]] == ids
    assert all(len(one) == 1 and one[0] for one in answers)
    if mine is None:
        assert len({one[0] for one in answers}) == 3
    else:
        assert answers == [[mine.encode()]] * 3


@pytest.mark.both_faces
async def test_what_an_instance_calls_a_request_does_not_cross(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=((b"X-Request-Id", b"other"), (b"x-request-id", b"two"))))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "GET"))
            answer = await client.read_response()

    assert answer.values(b"x-request-id") == web.requests[0].values(b"x-request-id")
