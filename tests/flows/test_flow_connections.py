"""Connections are kept where that is safe, and answers leave in the order of the requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Face, Serve, ask, fast_only, routes_to
from tests.fakes.peer import Action, Peer, ReceivedRequest
from tests.fakes.scenes import (
    app,
    chunked,
    head,
    hold,
    interim,
    play,
    reply,
    respond,
    until_closed,
)
from tests.fakes.upstream import ScriptedUpstream

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def says_its_target(request: ReceivedRequest) -> Action:
    return respond(body=request.target)


@pytest.mark.both_faces
async def test_both_connections_carry_one_request_after_the_other(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(app(says_its_target))
        bodies = []
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            for number in range(10):
                await client.send(ask(f"/{number}"))
                bodies.append((await client.read_response()).body)

        assert bodies == [b"/%d" % number for number in range(10)]
        assert len(web.connections) == 1


async def test_a_client_that_says_close_is_closed_and_the_instance_is_kept(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        said = []
        async with serve(routes_to(web)) as gateway:
            for _ in range(3):
                async with RawClient(gateway.port) as client:
                    await client.send(ask("/", "GET", ("Connection", "close")))
                    said += (await client.read_response()).values(b"connection")
                    await client.expect_closed()

        assert said == [b"close"] * 3
        assert len(web.connections) == 1


async def test_an_instance_that_says_close_is_not_used_again(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=[(b"Connection", b"close")]))
        statuses = []
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            for _ in range(3):
                await client.send(ask())
                statuses.append((await client.read_response()).status)

        assert statuses == [200] * 3
        assert len(web.connections) == 3


async def test_pipelined_requests_are_answered_in_their_order(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(app(says_its_target))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            requests = [
                ask("/0"),
                ask("/1", "POST", body=b"x" * 5000),
                ask("/2", "POST", ("Transfer-Encoding", "chunked")) + b"3\r\nabc\r\n0\r\n\r\n",
                ask("/3"),
            ]
            await client.send(b"".join(requests))
            bodies = [(await client.read_response()).body for _ in requests]

        assert bodies == [b"/0", b"/1", b"/2", b"/3"]
        assert [bytes(one.body) for one in web.requests] == [b"", b"x" * 5000, b"abc", b""]


@pytest.mark.both_faces
async def test_a_pipelined_request_waits_for_the_one_before(serve: Serve) -> None:
    """Not even the instance hears of it: the first answer may yet close the connection."""
    may_answer = asyncio.Event()
    async with ScriptedUpstream() as web:
        web.on_request(play(hold(may_answer), respond(body=b"slow")), respond(body=b"quick"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/slow") + ask("/quick"))
            await web.wait_until(lambda: bool(web.requests))
            asked_meanwhile = len(web.requests)
            may_answer.set()
            bodies = [(await client.read_response()).body for _ in range(2)]

    assert asked_meanwhile == 1
    assert bodies == [b"slow", b"quick"]


async def test_pipelined_refusals_keep_their_place(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(
                b"".join(ask(path) for path in ("/api", "/no", "/api", "/no", "/api"))
            )
            statuses = [(await client.read_response()).status for _ in range(5)]

    assert statuses == [200, 404, 200, 404, 200]


@pytest.mark.both_faces
@pytest.mark.parametrize("says", [(), (("Connection", "keep-alive"),)], ids=["plain", "keep-alive"])
async def test_an_http_1_0_client_gets_what_it_understands(
    serve: Serve, face: Face, says: tuple[tuple[str, str], ...]
) -> None:
    """No chunks, and its connection closed unless it asked otherwise.

    Under ASGI the server never keeps it.
    """
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *says).replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = await client.read_response()
            is_kept = bool(says) and face == "fast"
            if is_kept:
                await client.send(ask().replace(b"HTTP/1.1", b"HTTP/1.0"))
                await client.read_response()
            await client.expect_closed()

        assert answer.body == b"ok"
        assert answer.values(b"connection") == [b"keep-alive" if is_kept else b"close"]
        assert {request.http_version for request in web.requests} == {b"1.1"}


@fast_only
async def test_to_http_1_0_a_body_of_unknown_length_ends_with_the_connection(
    serve: Serve,
) -> None:
    """Under ASGI the server chunks it even then."""
    async with ScriptedUpstream() as web:
        web.on_request(chunked(b"all ", b"of it"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.read_response()

    assert answer.body == b"all of it"
    assert answer.values(b"transfer-encoding") == []
    assert answer.values(b"connection") == [b"close"]


async def test_an_http_1_0_client_may_leave_host_out(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            answer = await client.read_response()

        assert answer.status == 200
        assert len(web.requests) == 1


@pytest.mark.both_faces
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PATCH", "PROPFIND", "PURGE"])
async def test_every_method_crosses(serve: Serve, method: str) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", method))
            answer = await client.read_response(method.encode())

        assert answer.status == 200
        assert [method.encode()] == [request.method for request in web.requests]


@pytest.mark.both_faces
async def test_an_answer_to_head_has_the_length_and_no_body(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(respond(body=b"x" * 1234))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            answers = []
            for method in (b"HEAD", b"GET", b"HEAD"):
                await client.send(ask("/", method.decode()))
                answers.append(await client.read_response(method))

        assert [one.status for one in answers] == [200, 200, 200]
        assert [one.values(b"content-length") for one in answers] == [[b"1234"]] * 3
        assert [len(one.body) for one in answers] == [0, 1234, 0]
        assert len(web.connections) == 1


@pytest.mark.both_faces
@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (head(204), []),
        (head(204, [(b"Content-Length", b"0")]), []),
        (head(304, [(b"ETag", b'"1"')]), []),
        (head(304, [(b"Content-Length", b"1234")]), [b"1234"]),
        (head(205, [(b"Content-Length", b"0")]), [b"0"]),
    ],
    ids=["204", "204-length", "304", "304-length", "205"],
)
async def test_answers_without_a_body_leave_the_connection_usable(
    serve: Serve, face: Face, raw: bytes, length: list[bytes]
) -> None:
    """The length of a 304 is that of the 200 it stands for; ASGI servers do not take it."""
    async with ScriptedUpstream() as web:
        web.on_request(reply(raw), respond(body=b"next"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()
            await client.send(ask())
            following = await client.read_response()

        assert answer.body == b""
        expected = [] if face == "asgi" and answer.status == 304 else length
        assert answer.values(b"content-length") == expected
        assert answer.values(b"transfer-encoding") == []
        assert following.body == b"next"
        assert len(web.connections) == 1


async def test_what_stands_behind_an_answer_is_not_the_next_one(serve: Serve) -> None:
    """Response smuggling: a second answer that nobody asked for must reach nobody."""
    async with ScriptedUpstream() as web:
        evil = head(200, [(b"Content-Length", b"4")]) + b"evil"
        good = head(200, [(b"Content-Length", b"4")]) + b"good"
        web.on_request(reply(good + evil), respond(body=b"next"))
        bodies = []
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            for _ in range(3):
                await client.send(ask())
                bodies.append((await client.read_response()).body)

    assert bodies == [b"good", b"next", b"next"]


async def test_a_body_without_a_length_crosses_in_chunks(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(until_closed(b"all of it"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            answers = []
            for _ in range(2):
                await client.send(ask())
                answers.append(await client.read_response())

    assert [one.body for one in answers] == [b"all of it"] * 2
    assert [one.values(b"transfer-encoding") for one in answers] == [[b"chunked"]] * 2


@fast_only
async def test_interim_answers_are_relayed(serve: Serve) -> None:
    """ASGI has none."""
    links = [(b"Link", b"</style.css>; rel=preload")]
    async with ScriptedUpstream() as web:
        web.on_request(play(interim(103, links), respond()))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    assert [one.status for one in answer.interim] == [103]
    assert answer.interim[0].values(b"link") == [links[0][1]]


@fast_only
async def test_the_instance_decides_whether_a_body_is_wanted(serve: Serve) -> None:
    """`Expect: 100-continue` is end to end. Under ASGI the server says 100 itself."""
    async with ScriptedUpstream() as web:
        web.on_head(interim(100))
        request = ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(request)
            await web.wait_until(lambda: bool(web.requests))
            assert await client.read_some() == CONTINUE
            await client.send(b"body")
            answer = await client.read_response()

        assert answer.status == 200
        assert web.requests[0].values(b"expect") == [b"100-continue"]
        assert bytes(web.requests[0].body) == b"body"


@fast_only
async def test_a_body_that_is_not_wanted_is_not_sent(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_head(play(respond(417), close_soon))
        request = ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(request)
            answer = await client.read_response()
            await client.expect_closed()

        assert answer.status == 417
        assert answer.interim == []
        assert answer.values(b"connection") == [b"close"]


async def close_soon(peer: Peer) -> None:
    peer.finish()


@pytest.mark.both_faces
async def test_a_client_that_waits_for_100_gets_it_with_either_face(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_head(interim(100))
        request = ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(request)
            assert await client.read_some() == CONTINUE
            await client.send(b"body")
            answer = await client.read_response()

        assert answer.status == 200
        assert bytes(web.requests[0].body) == b"body"


@pytest.mark.parametrize(
    "route", [{}, {"middleware": ["tests.fakes.apps:Adds"]}], ids=["plain", "middleware"]
)
async def test_an_expectation_that_nobody_knows_reaches_the_instance(
    serve: Serve, route: dict[str, Any]
) -> None:
    """It may answer 417 (RFC 9110 §10.1.1)."""
    async with ScriptedUpstream() as web:
        web.on_request(respond(417))
        request = ask("/", "POST", ("Expect", "200-ok"), body=b"body")
        async with serve(routes_to(web, **route)) as gateway, RawClient(gateway.port) as client:
            await client.send(request)
            answer = await client.read_response()

        assert answer.status == 417
        assert [one.values(b"expect") for one in web.requests] == [[b"200-ok"]]
