"""What an app is told of who asks: from the connection, and from trusted proxies alone."""

from __future__ import annotations

import pytest

from gateway.core.headers import read_request, split_request
from gateway.core.message import Fields, Peer, Request, lines_of
from gateway.core.routing import Route, RouteMatch
from gateway.edge.app_scope import app_fields, http_scope, root_path_of


def request(*fields: tuple[bytes, bytes], address: bytes = b"10.0.0.1", trusted: bool) -> Request:
    """Write a request from this peer."""
    lines = lines_of([(b"Host", b"a.test"), *fields])
    made = Request(b"GET", b"/a%20b", b"?q=1", lines, b"a.test")
    made.peer = Peer(address, b"http", is_trusted=trusted)
    made.request_id = b"id-1"
    read_request(made, split_request(made.lines))
    return made


@pytest.mark.parametrize(("trusted", "scheme"), [(True, "https"), (False, "http")])
def test_the_scheme_of_an_app_is_that_of_the_request(*, trusted: bool, scheme: str) -> None:
    asked = request((b"X-Forwarded-Proto", b"HTTPS, http"), trusted=trusted)

    assert http_scope(asked, Route(id="a", match=RouteMatch(path=b"/")), {})["scheme"] == scheme


@pytest.mark.parametrize(
    ("length", "fields", "framing"),
    [
        (0, [], []),
        (5, [(b"Content-Length", b"5")], []),
        (None, [(b"Transfer-Encoding", b"chunked")], [(b"transfer-encoding", b"chunked")]),
    ],
)
def test_the_app_is_told_how_long_the_body_is(
    length: int | None, fields: Fields, framing: Fields
) -> None:
    asked = request((b"TE", b"trailers"), *fields, (b"X-Mine", b"a: b"), trusted=False)
    asked.length = length

    assert app_fields(asked) == [
        (b"host", b"a.test"),
        *((b"content-length", value) for name, value in fields if length is not None),
        (b"x-mine", b"a: b"),
        (b"x-forwarded-for", b"10.0.0.1"),
        (b"x-real-ip", b"10.0.0.1"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"a.test"),
        (b"x-request-id", b"id-1"),
        *framing,
    ]


def test_a_client_without_an_address_is_told_as_none() -> None:
    route = Route(id="a", match=RouteMatch(path=b"/"))
    state = {"pool": object()}

    scope = http_scope(request(address=b"", trusted=False), route, state)

    assert (scope["client"], scope["server"]) == (None, None)
    assert (scope["path"], scope["query_string"]) == ("/a b", b"q=1")
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert scope["state"] == state
    assert scope["state"] is not state


@pytest.mark.parametrize(
    ("path", "strips", "root_path"),
    [(b"/a%20b/c", True, "/a b/c"), (b"/", True, ""), (b"/a", False, "")],
)
def test_what_is_stripped_is_where_the_app_stands(
    path: bytes, *, strips: bool, root_path: str
) -> None:
    route = Route(id="a", match=RouteMatch(path=path), strip_prefix=strips)

    assert root_path_of(route) == root_path
