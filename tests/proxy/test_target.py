"""What a route makes of a request's first lines, and of its limits."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from gateway.core.failure import Failure
from gateway.core.message import Request
from gateway.core.policy import Timeouts
from gateway.core.routing import Route, RouteMatch
from gateway.proxy.target import Target, closing_lines
from tests.fakes.engine import SERVICE, Stage, instance

ROUTE = Route(id="api", match=RouteMatch(path=b"/api"), service=SERVICE)


def target_of(route: Route, *, client_body_timeout_s: float = 60.0) -> Target:
    stage = Stage()
    loads = stage.engine.loads
    return Target(route, stage.fleet, loads, client_body_timeout_s=client_body_timeout_s)


def start_line(route: Route, path: bytes, host: bytes = b"example.com") -> bytes:
    lines = b"\r\nHost: " + host if host else b""
    request = Request(b"GET", path, b"?q=/api", lines + b"\r\nA: b", host)
    return target_of(route).head(request, instance("a"), b"")


@pytest.mark.parametrize(
    ("strips", "prefix", "path", "sent"),
    [
        (False, b"", b"/api/x", b"/api/x"),
        (True, b"", b"/api/x", b"/x"),
        (True, b"", b"/api", b"/"),
        (True, b"", b"/api/", b"/"),
        (True, b"", b"/api/api/x", b"/api/x"),
        (False, b"/v2", b"/api/x", b"/v2/api/x"),
        (True, b"/v2", b"/api/x", b"/v2/x"),
        (True, b"/v2", b"/api", b"/v2/"),
    ],
)
def test_the_path_is_rewritten_as_the_route_says(
    strips: bool,  # noqa: FBT001 -- a parameter of the test
    prefix: bytes,
    path: bytes,
    sent: bytes,
) -> None:
    route = replace(ROUTE, strip_prefix=strips, add_prefix=prefix)

    line = start_line(route, path)

    assert b"GET %b?q=/api HTTP/1.1\r\nHost: example.com\r\nA: b" % sent == line


@pytest.mark.parametrize("prefix", [b"/", b"/api/"])
def test_a_prefix_with_a_slash_at_its_end_strips_no_slash(prefix: bytes) -> None:
    route = replace(ROUTE, match=RouteMatch(path=prefix), strip_prefix=True)
    path = prefix.rstrip(b"/") + b"/x"

    assert start_line(route, path).startswith(b"GET /x?")


def test_the_instance_is_named_in_host_where_the_route_says_so() -> None:
    line = start_line(replace(ROUTE, preserve_host=False), b"/api")

    assert line.endswith(b"\r\nHost: 127.0.0.1:80\r\nA: b")
    assert line.count(b"Host") == 1


def test_a_request_without_host_gets_one() -> None:
    """HTTP/1.0 clients may send none, HTTP/1.1 instances must have one (RFC 9112 §3.2)."""
    assert start_line(ROUTE, b"/api", host=b"").endswith(b"\r\nHost: 127.0.0.1:80\r\nA: b")


@pytest.mark.parametrize(
    ("length", "offer", "lines"),
    [
        (None, b"", b"\r\nVia: us\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (5, b"", b"\r\nVia: us\r\n\r\n"),
        (0, b"", b"\r\nVia: us\r\n\r\n"),
        (0, b"a", b"\r\nVia: us\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n"),
    ],
)
def test_a_head_ends_with_what_is_ours(length: int | None, offer: bytes, lines: bytes) -> None:
    """Content-Length is not: it crosses as it came, so both never stand in one head."""
    request = Request(b"POST", b"/", b"", b"\r\nHost: a", b"a")
    request.length, request.upgrade = length, offer

    assert closing_lines(request, b"\r\nVia: us").endswith(lines)


@pytest.mark.parametrize(("is_http10", "via"), [(False, b"1.1 gateway"), (True, b"1.0 gateway")])
def test_via_tells_the_version_that_a_request_came_with(*, is_http10: bool, via: bytes) -> None:
    request = Request(b"GET", b"/", b"", b"\r\nHost: a", b"a")
    request.is_http10 = is_http10

    assert closing_lines(request, b"\r\nVia: 1.1 gateway").endswith(b"Via: %b\r\n\r\n" % via)


def test_no_limit_is_infinite() -> None:
    no_limits = Timeouts(connect_s=None, response_s=None, idle_s=None, request_s=None)

    target = target_of(replace(ROUTE, timeouts=no_limits))

    assert (inf, inf) == (target.connect_s, target.response_s)
    assert (inf, inf) == (target.idle_s, target.request_s)
    assert 60.0 == target.client_idle_s
    assert inf == target.max_body_bytes


def test_a_client_may_be_idle_no_longer_than_either_limit() -> None:
    route = replace(ROUTE, timeouts=Timeouts(idle_s=5.0))

    assert 5.0 == target_of(route, client_body_timeout_s=60.0).client_idle_s
    assert 2.0 == target_of(route, client_body_timeout_s=2.0).client_idle_s


@pytest.mark.parametrize(("length", "is_taken"), [(None, True), (10, True), (11, False)])
def test_a_length_over_the_limit_is_refused_before_anything_is_sent(
    length: int | None,
    is_taken: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    request = Request(b"POST", b"/api", b"", b"", b"a")
    request.length = length

    problem = target_of(replace(ROUTE, max_body_bytes=10)).problem(request)

    if is_taken:
        assert None is problem
    else:
        assert (Failure.BODY_TOO_LARGE, "the body is over 10 bytes") == problem
