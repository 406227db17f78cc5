"""A path means one thing, here and at the instance: what the instance gets is what was judged."""

from __future__ import annotations

import json

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_file
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream


def routes_with_an_admin(public: ScriptedUpstream, admin: ScriptedUpstream, **paths: object) -> str:
    """Write routes with a part that only its own instances should see; `paths` is the policy."""
    services = {"public": {"servers": [public.url]}, "admin": {"servers": [admin.url]}}
    written = routes_file(
        services,
        {"match": {"path_prefix": "/"}, "service": "public"},
        {"match": {"path_prefix": "/public"}, "service": "public"},
        {"match": {"path_prefix": "/admin"}, "service": "admin"},
        {"match": {"path_prefix": "/cut"}, "service": "public", "strip_prefix": True},
        {
            "match": {"path_prefix": "/around"},
            "service": "public",
            "middleware": [{"use": "tests.fakes.apps:Adds"}],
        },
    )
    return json.dumps({**json.loads(written), "paths": paths})


async def targets_of(
    serve: Serve, target: str, **paths: object
) -> tuple[int, list[bytes], list[bytes]]:
    """Ask for a target; tell the status, and what the public and the admin instances got."""
    async with ScriptedUpstream() as public, ScriptedUpstream() as admin:
        public.on_request(respond())
        admin.on_request(respond())
        routes = routes_with_an_admin(public, admin, **paths)
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask(target))
            answer = await client.read_response()
        return (
            answer.status,
            [request.target for request in public.requests],
            [request.target for request in admin.requests],
        )


@pytest.mark.parametrize(
    "target",
    [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/./admin",
        "/%61dmin",
    ],
)
async def test_whoever_means_the_admin_part_gets_to_its_own_route(
    serve: Serve, target: str
) -> None:
    assert (200, [], [b"/admin"]) == await targets_of(serve, target)


@pytest.mark.both_faces
@pytest.mark.parametrize(
    "target",
    [
        *("/public/..;/admin", "/public/..;x=1/admin", "/public/..%2fadmin", "/public/..%5cadmin"),
        *("/public/..\\admin", "/public/%252e%252e/admin", "/public/..%252fadmin", "/..;/admin"),
        *("/public/%c0%ae%c0%ae/admin", "/public/..%c0%afadmin", "/public%2f..%2fadmin"),
        *("/public/a%00", "/public/a%2500", "/public/a\\b", "/public/a%5Cb", "/public/%c1%a1"),
        *(
            "/admin%2Fx",
            "/%2fadmin",
            "/admin;x/y",
            "/;/admin",
            "/admin%3Bx",
            "/cut%2f/x",
            "/admin%252fx",
            "//admin",
            "/admin%3fx",
            "/admin%23x",
        ),
    ],
)
async def test_a_path_that_could_mean_something_else_to_an_instance_reaches_none(
    serve: Serve, target: str
) -> None:
    assert (400, [], []) == await targets_of(serve, target)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/public/a%2fb", b"/public/a%2Fb"),
        ("/public/a;v=1/b;w", b"/public/a;v=1/b;w"),
        ("/public/caf%c3%a9%20x", b"/public/caf%C3%A9%20x"),
        ("/cut/a%2fb;c", b"/a%2Fb;c"),
    ],
)
async def test_what_cannot_mean_anything_else_arrives_as_it_was_sent(
    serve: Serve, target: str, sent: bytes
) -> None:
    """But for the case of escapes (RFC 3986 §6.2.2.1)."""
    assert (200, [sent], []) == await targets_of(serve, target)


@pytest.mark.parametrize("prefix", ["/public", "/around"])
@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("encoded_slash", "/a%2Fb"),
        ("encoded_backslash", "/a%5Cb"),
        ("backslash", "/a\\b"),
        ("semicolon", "/a;b"),
        ("overlong_utf8", "/a%C1%A1b"),
    ],
)
async def test_the_file_says_what_is_kept_and_what_is_rejected(
    serve: Serve, key: str, prefix: str, path: str
) -> None:
    """Behind middleware too."""
    target = prefix + path
    assert (400, [], []) == await targets_of(serve, target, **{key: "reject"})
    kept = await targets_of(serve, target, **{key: "keep"})
    assert (200, [target.encode()], []) == kept


async def test_slashes_that_are_kept_do_not_get_past_a_route(serve: Serve) -> None:
    assert (400, [], []) == await targets_of(serve, "//admin")
    assert (200, [], [b"/admin"]) == await targets_of(serve, "//admin", merge_slashes=True)
    for target in ("/public//a//", "/around//a//"):
        assert (200, [target.encode()], []) == await targets_of(serve, target)


@pytest.mark.both_faces
@pytest.mark.parametrize("prefix", ["/public", "/around", "/cut"])
async def test_a_url_in_a_path_arrives_as_it_was_sent(serve: Serve, prefix: str) -> None:
    url = "/https://example.com/a?b=1"
    sent = url if prefix == "/cut" else prefix + url
    assert (200, [sent.encode()], []) == await targets_of(serve, prefix + url)
