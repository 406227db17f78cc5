"""What need not change does not: targets, fields and bodies arrive as they were sent."""

from __future__ import annotations

import gzip

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Face, Serve, ask, routes_to
from tests.fakes.scenes import chunked, respond, until_closed
from tests.fakes.upstream import ScriptedUpstream

EVERY_BYTE = bytes(range(256)) * 64


async def test_a_compressed_body_is_not_touched(serve: Serve) -> None:
    packed = gzip.compress(b"much of the same " * 100)
    async with ScriptedUpstream() as web:
        web.on_request(respond(body=packed, headers=[(b"Content-Encoding", b"gzip")]))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", ("Accept-Encoding", "gzip, br;q=0.5")))
            answer = await client.read_response()

        assert answer.body == packed
        assert answer.values(b"content-encoding") == [b"gzip"]
        assert answer.values(b"content-length") == [b"%d" % len(packed)]
        assert web.requests[0].values(b"accept-encoding") == [b"gzip, br;q=0.5"]


async def test_two_cookies_arrive_as_two_fields_in_their_order(serve: Serve) -> None:
    cookies = [(b"Set-Cookie", b"a=1; Path=/"), (b"Set-Cookie", b"b=2; HttpOnly")]
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=cookies))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    assert answer.values(b"set-cookie") == [b"a=1; Path=/", b"b=2; HttpOnly"]


async def test_one_clients_cookie_is_not_sent_with_the_next_ones_request(serve: Serve) -> None:
    """HTTP clients keep cookies; a gateway that is built on one mixes its users up."""
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=[(b"Set-Cookie", b"session=alice")]))
        async with serve(routes_to(web)) as gateway:
            for _ in range(2):
                async with RawClient(gateway.port) as client:
                    await client.send(ask())
                    await client.read_response()

        assert [request.values(b"cookie") for request in web.requests] == [[], []]


@pytest.mark.both_faces
@pytest.mark.parametrize(
    "target",
    [
        "/files/a%2Fb",
        "/files/a%2Fb%20c",
        "/files/%C3%A9%E2%82%AC",
        "/files/a;v=1,2/b:c@d$e!f*g'(h)+i=j&k",
        "/files/",
        "/files/...",
        "/files/a?",
        "/files?a=%2F&b=c+d&&=&e",
        "/files?q=/../x?y=1&a[]=1&a[]=2",
        "/files?%zz=%",
        '/files?json={"a":[1|2]}',
    ],
)
async def test_targets_arrive_byte_for_byte(serve: Serve, face: Face, target: str) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask(target))
            answer = await client.read_response()

        assert answer.status == 200
        # ASGI does not tell an empty query from none.
        expected = target.removesuffix("?") if face == "asgi" else target
        assert [expected.encode()] == [request.target for request in web.requests]


@pytest.mark.both_faces
async def test_request_fields_keep_order_case_and_duplicates(serve: Serve, face: Face) -> None:
    """Under ASGI names are lower-case; order and duplicates are kept."""
    fields = [
        ("X-First", "1"),
        ("x-weird_NAME", "~!"),
        ("Accept", "text/html"),
        ("accept", "*/*"),
        ("X-Empty", ""),
        ("X-Latin", "caf\xe9"),
        ("Cookie", "a=1"),
        ("Authorization", "Bearer x.y.z"),
        ("Range", "bytes=0-10"),
        ("X-First", "2"),
    ]
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", *fields))
            await client.read_response()

        got = web.requests[0].headers
    sent = [
        ((name if face == "fast" else name.lower()).encode(), value.encode("latin-1"))
        for name, value in fields
    ]
    assert sent == [field for field in got if field in sent]


@pytest.mark.both_faces
async def test_answer_fields_keep_order_case_and_duplicates(serve: Serve, face: Face) -> None:
    fields = [
        (b"X-One", b"1"),
        (b"x-unKnown", b"caf\xe9"),
        (b"Vary", b"Accept"),
        (b"vary", b"Cookie"),
        (b"X-Empty", b""),
        (b"Server", b"scripted/1"),
        (b"X-One", b"2"),
    ]
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=fields))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    sent = fields if face == "fast" else [(name.lower(), value) for name, value in fields]
    assert sent == [field for field in answer.headers if field in sent]


@pytest.mark.both_faces
async def test_every_byte_crosses_in_bodies_both_ways(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(respond(body=EVERY_BYTE), chunked(EVERY_BYTE), until_closed(EVERY_BYTE))
        bodies = []
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            for _ in range(3):
                await client.send(ask("/", "POST", body=EVERY_BYTE))
                bodies.append((await client.read_response()).body)

        assert bodies == [EVERY_BYTE] * 3
        assert [bytes(request.body) for request in web.requests] == [EVERY_BYTE] * 3


@pytest.mark.both_faces
async def test_the_instance_is_told_who_asked(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(
                ask("/", "GET", ("X-Forwarded-For", "6.6.6.6"), ("X-Request-Id", "forged"))
            )
            await client.read_response()

        sent = web.requests[0]
        assert sent.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert sent.values(b"x-forwarded-proto") == [b"http"]
        assert sent.values(b"x-forwarded-host") == [b"shop.example"]
        assert sent.values(b"via") == [b"1.1 gateway"]
        assert b"forged" not in sent.values(b"x-request-id")


async def test_a_trusted_peer_is_believed_and_appended_to(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web)
        async with (
            serve(routes, trusted_proxies="127.0.0.0/8") as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(
                ask(
                    "/",
                    "GET",
                    ("X-Forwarded-For", "203.0.113.9"),
                    ("X-Forwarded-Proto", "https"),
                    ("X-Request-Id", "outer-1"),
                )
            )
            await client.read_response()

        sent = web.requests[0]
        assert sent.values(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.1"]
        assert sent.values(b"x-forwarded-proto") == [b"https"]
        assert sent.values(b"x-request-id") == [b"outer-1"]


async def test_the_trace_of_a_request_goes_on(serve: Serve) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", ("traceparent", trace), ("tracestate", "a=1")))
            await client.read_response()

        assert web.requests[0].values(b"traceparent") == [trace.encode()]
        assert web.requests[0].values(b"tracestate") == [b"a=1"]


@pytest.mark.both_faces
async def test_fields_for_one_hop_stop_here_both_ways(serve: Serve) -> None:
    """RFC 9110 §7.6.1, and what Connection names; the client's Keep-Alive is not the instance's."""
    answer_fields = [(b"Connection", b"X-Hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"timeout=5")]
    async with ScriptedUpstream() as web:
        web.on_request(respond(headers=answer_fields))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(
                ask(
                    "/",
                    "GET",
                    ("Connection", "keep-alive, X-Private"),
                    ("X-Private", "1"),
                    ("Keep-Alive", "timeout=9"),
                    ("Proxy-Connection", "keep-alive"),
                    ("TE", "gzip"),
                )
            )
            answer = await client.read_response()

        for name in (b"x-private", b"keep-alive", b"proxy-connection", b"te", b"connection"):
            assert web.requests[0].values(name) == [], name
        for name in (b"x-hop", b"keep-alive"):
            assert answer.values(name) == [], name


@pytest.mark.both_faces
async def test_what_a_route_takes_out_of_requests_crosses_in_no_spelling(
    serve: Serve, face: Face
) -> None:
    """A deadline of a client would let it send requests that instances give up at once."""
    names = ["X-Time-Left", "x_time_left", "X.Time-Left", "X-Client-Ip", "x~client.ip"]
    async with ScriptedUpstream() as web:
        routes = routes_to(
            web, deadline_header="X-Time-Left", remove_request_fields=["X-Client-Ip"]
        )
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            fields = [(name, "7") for name in (*names, "X-Client")]
            head = ask("/", "POST", ("Transfer-Encoding", "chunked"), *fields)
            trailers = "".join(f"{name}: 8\r\n" for name in names).encode()
            await client.send(head)
            await client.send(b"3\r\nabc\r\n")
            await web.wait_until(lambda: bool(web.requests))
            await client.send(b"0\r\n" + trailers + b"X-Sum: 9\r\n\r\n")
            await client.read_response()

        told = [value for _, value in web.requests[0].headers]
        assert b"8" not in told
        assert told.count(b"7") == 1
        assert web.requests[0].values(b"x-client") == [b"7"]
        assert web.requests[0].trailers == ([(b"X-Sum", b"9")] if face == "fast" else [])


@pytest.mark.both_faces
async def test_trailers_cross_both_ways(serve: Serve, face: Face) -> None:
    """ASGI has no trailers, so there they are left out."""
    async with ScriptedUpstream() as web:
        web.on_request(chunked(b"body", trailers=[(b"X-Sum", b"42"), (b"Host", b"evil")]))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            head = ask("/", "POST", ("Transfer-Encoding", "chunked"), ("TE", "trailers"))
            await client.send(head + b"3\r\nabc\r\n0\r\nX-Check: 7\r\nCookie: a=1\r\n\r\n")
            answer = await client.read_response()

        assert (bytes(web.requests[0].body), answer.body) == (b"abc", b"body")
        trailers = (web.requests[0].trailers, answer.trailers)
        crossed = ([(b"X-Check", b"7")], [(b"X-Sum", b"42")])
        assert trailers == (crossed if face == "fast" else ([], []))
