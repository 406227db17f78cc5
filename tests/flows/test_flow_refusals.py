"""Every refusal has a named reason, in a form that programs can read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.client import Answer, RawClient
from tests.fakes.gateway import Face, Serve, ask, fast_only, routes_file, routes_to
from tests.fakes.scenes import close, head, play, reply
from tests.fakes.upstream import ScriptedUpstream


def problem(answer: Answer) -> dict[str, Any]:
    """Read a refusal, which must be of the one shape."""
    assert answer.values(b"content-type") == [b"application/problem+json"]
    assert answer.values(b"cache-control") == [b"no-store"]
    document: dict[str, Any] = json.loads(answer.body)
    assert document["status"] == answer.status
    assert [document["reason"].encode()] == answer.values(b"x-gateway-reason")
    return document


async def refused(serve: Serve, routes: str, request: bytes, **settings: object) -> Answer:
    async with serve(routes, **settings) as gateway, RawClient(gateway.port) as client:
        await client.send(request)
        return await client.read_response(request.partition(b" ")[0])


@pytest.mark.both_faces
async def test_a_path_that_no_route_takes_is_404(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"})
        answer = await refused(serve, routes, ask("/nowhere?secret=1"))

    document = problem(answer)
    assert answer.status == 404
    assert document["type"] == "urn:gateway:failure:no_route"
    assert document["title"] == "No route matches this request"
    assert document["detail"] == "no route takes /nowhere"
    assert document["reason"] == "no_route"
    assert len(document["request_id"]) == 20
    assert answer.values(b"date") != []


@pytest.mark.both_faces
async def test_a_refusal_of_a_head_has_no_body(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/nowhere", "HEAD") + ask("/api"))
            answer = await client.read_response(b"HEAD")
            following = await client.read_response()

    assert (answer.status, answer.body) == (404, b"")
    assert answer.values(b"x-gateway-reason") == [b"no_route"]
    assert int(answer.values(b"content-length")[0]) > 100
    assert following.status == 200


async def test_a_request_id_of_a_trusted_peer_is_in_the_refusal(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"})
        request = ask("/nowhere", "GET", ("X-Request-Id", "outer-7"))
        answer = await refused(serve, routes, request, trusted_proxies="127.0.0.1")

    assert problem(answer)["request_id"] == "outer-7"


async def test_a_service_that_nobody_was_heard_of_is_503_and_never_404(serve: Serve) -> None:
    """The registry cannot be asked at all here: nobody listens at its address."""
    routes = routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"})
    nowhere = "http://127.0.0.1:9"
    answer = await refused(serve, routes, ask(), registry="consul", consul_address=nowhere)

    assert answer.status == 503
    assert problem(answer)["reason"] == "catalog_cold"
    assert answer.values(b"retry-after") == [b"1"]


async def test_one_instance_that_refuses_is_a_bad_gateway(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        await web.refuse()
        answer = await refused(serve, routes_to(web), ask())

        assert answer.status == 502
        assert problem(answer)["reason"] == "connect_failed"
        assert web.authority in problem(answer)["detail"]
        assert answer.values(b"retry-after") == []


@pytest.mark.both_faces
@pytest.mark.parametrize("instances", ["refuses", "close", "talk nonsense", "all refuse"])
async def test_by_default_a_refusal_says_nothing_of_instances(serve: Serve, instances: str) -> None:
    """No address, no port, no text of a library: the log has them, under the id of the request."""
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        web.on_request(play(reply(b"nonsense\r\n\r\n"), close()))
        if instances == "close":
            web.on_request(close())
        if "refuse" in instances:
            await web.refuse()
            await other.refuse()
        routes = routes_to(*((web, other) if instances == "all refuse" else (web,)))
        answer = await refused(serve, routes, ask(), error_detail="reason")
        ports = [str(one.port).encode() for one in (web, other)]

    document = problem(answer)
    assert set(document) == {"type", "title", "status", "reason", "request_id"}
    written = answer.body + b"".join(value for _, value in answer.headers)
    assert not [told for told in (b"127.0.0.1", b"Errno", b"web", *ports) if told in written]


@pytest.mark.both_faces
async def test_what_is_wrong_with_the_request_is_said_in_any_case(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"})
        answer = await refused(serve, routes, ask("/x"), error_detail="reason")

    assert problem(answer)["detail"] == "no route takes /x"


async def test_all_instances_that_refuse_are_an_unavailable_service(serve: Serve) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        await one.refuse()
        await two.refuse()
        answer = await refused(serve, routes_to(one, two), ask())

    assert answer.status == 503
    assert problem(answer)["reason"] == "all_unreachable"
    assert answer.values(b"retry-after") == [b"1"]


@pytest.mark.parametrize(
    "raw",
    [
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX-Bad : 1\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        head(101),
    ],
    ids=["no-http", "two-framings", "two-lengths", "space-before-colon", "version", "switching"],
)
async def test_an_answer_that_can_be_read_in_two_ways_is_not_passed_on(
    serve: Serve, raw: bytes
) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(play(reply(raw), close()))
        answer = await refused(serve, routes_to(web), ask())

    assert answer.status == 502
    assert problem(answer)["reason"] == "bad_response"


@pytest.mark.both_faces
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /%2e%2e%2fetc HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["no-host", "two-hosts", "no-host-name", "climbs", "nul", "no-escape", "coding"],
)
async def test_an_ambiguous_request_is_refused_with_its_reason(
    serve: Serve, request_bytes: bytes
) -> None:
    async with ScriptedUpstream() as web:
        answer = await refused(serve, routes_to(web), request_bytes)

        assert answer.status == 400
        assert problem(answer)["reason"] == "bad_request"
        assert web.requests == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["no-host", "two-hosts", "no-host-name", "coding", "connect"],
)
async def test_behind_a_request_that_is_refused_the_connection_ends(
    serve: Serve, request_bytes: bytes
) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(request_bytes + ask("/next"))
            answer = await client.read_response()
            await client.expect_closed()

        assert answer.values(b"connection") == [b"close"]
        assert web.requests == []


@pytest.mark.both_faces
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ],
    ids=["nonsense", "space", "folded", "bare-lf", "plus", "two-framings", "two-lengths"],
)
async def test_what_is_not_http_is_refused_and_the_connection_closed(
    serve: Serve, face: Face, request_bytes: bytes
) -> None:
    """Under ASGI the server says so in its own words."""
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(request_bytes)
            answer = await client.read_response()
            await client.expect_closed()

        assert answer.status == 400
        assert web.requests == []
    if face == "fast":
        assert problem(answer)["reason"] == "bad_request"


@fast_only
@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (ask("/" + "a" * 9000), 414, "uri_too_long"),
        (ask("/", "GET", ("X-Large", "a" * 70_000)), 431, "headers_too_large"),
        (ask("/", "GET", *[("X-Many", "1")] * 120), 431, "headers_too_large"),
    ],
    ids=["line", "field", "fields"],
)
async def test_a_head_that_is_too_large_is_refused(
    serve: Serve, request_bytes: bytes, status: int, reason: str
) -> None:
    """Under ASGI the limits of a head are the server's business."""
    async with ScriptedUpstream() as web:
        answer = await refused(serve, routes_to(web), request_bytes)

    assert answer.status == status
    assert problem(answer)["reason"] == reason


async def test_a_body_of_many_small_reads_is_not_taken_for_a_head(serve: Serve) -> None:
    """The limits of a head are for heads: a body may be as long as it likes."""
    body = b"x" * 300_000
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", body=body) + ask("/next"))
            statuses = [(await client.read_response()).status for _ in range(2)]

        assert statuses == [200, 200]
        assert bytes(web.requests[0].body) == body


async def test_a_tunnel_is_not_offered(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        answer = await refused(serve, routes_to(web), ask("shop.example:443", "CONNECT"))

        assert answer.status in {400, 501}
        assert web.requests == []
