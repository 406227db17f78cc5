"""Routes that end in an app of this process, and middleware around those and around services."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.edge.asgi import Receive, Scope, Send
from tests.fakes.apps import answers, body_of, piece, puppet, start
from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import Serve, ask, fast_only, routes_file
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.scenes import app as service
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

APPS = "tests.fakes.apps:"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _fresh_puppet() -> Iterator[None]:
    puppet.reset()
    yield
    puppet.reset()


def app_at(path: str, name: str = "puppet", **route: Any) -> dict[str, Any]:
    """Write a route to an app of `tests.fakes.apps`."""
    return {"match": {"path_prefix": path}, "app": APPS + name, **route}


def app_routes(*routes: dict[str, Any]) -> str:
    """Write a routes.yaml of such routes, by default one for all."""
    return routes_file({}, *(routes or (app_at("/"),)))


def mixed(web: ScriptedUpstream, *routes: dict[str, Any], **web_route: Any) -> str:
    """Write one with a service at /web, and these beside it."""
    services = {"web": {"servers": [f"http://{web.authority}"]}}
    to_web = {"match": {"path_prefix": "/web"}, "service": "web", **web_route}
    return routes_file(services, to_web, *routes)


async def settled_size(count: Callable[[], int]) -> int:
    """Wait until this has stopped to grow; return it."""
    before, now = -1, count()
    while before != now or not now:
        await asyncio.sleep(0.05)
        before, now = now, count()
    return now


@pytest.mark.both_faces
async def test_an_app_answers_in_the_place_of_an_instance(serve: Serve) -> None:
    puppet.plays(answers(201, b"made", (b"x-app", b"1")))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask("/a%20b?q=1", "POST", body=b"hello"))
        answer = await client.read_response()

    assert (answer.status, answer.body, answer.values(b"x-app")) == (201, b"made", [b"1"])
    assert answer.values(b"content-length") == [b"4"]
    assert len(answer.values(b"date")) == 1
    (scope,) = puppet.scopes
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("POST", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["root_path"]) == (b"q=1", "")


async def test_requests_to_apps_and_services_are_answered_in_their_order(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(service(lambda request: respond(body=request.target)))
        targets = ["/web/0", "/app/1", "/web/2", "/app/3", "/app/4", "/no", "/web/6"]
        async with (
            serve(mixed(web, app_at("/app", "echo"))) as gateway,
            RawClient(gateway.port) as client,
        ):
            requests = [
                ask(one) if one == "/no" else ask(one, "POST", body=b"b") for one in targets
            ]
            await client.send(b"".join(requests))
            found = [(await client.read_response()).body[:6] for _ in targets]

        assert found[:5] == [b"/web/0", b"/app/1", b"/web/2", b"/app/3", b"/app/4"]
        assert found[5].startswith(b"{")
        assert found[6] == b"/web/6"
        assert len(web.connections) == 1


async def test_a_starlette_app_is_mounted_with_its_lifespan_and_its_state(serve: Serve) -> None:
    routes = app_routes(app_at("/hi", "starlette", strip_prefix=True))
    async with serve(routes) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/hi/greet/ann"))
            greeting = json.loads((await client.read_response()).body)
            await client.send(ask("/hi/count"))
            counted = await client.read_response()
            await client.send(ask("/hi/length", "POST", body=b"x" * 300_000))
            length = json.loads((await client.read_response()).body)
            await client.send(ask("/hi/nowhere"))
            missing = await client.read_response()
        assert puppet.lifespan == ["starlette starts"]

    assert greeting == {
        "greeting": "hello",
        "name": "ann",
        "url": "http://shop.example/hi/greet/ann",
    }
    assert (counted.body, counted.values(b"transfer-encoding")) == (b"0\n1\n2\n", [b"chunked"])
    assert length == {"bytes": 300_000}
    assert (missing.status, missing.body) == (404, b"Not Found")
    assert puppet.lifespan == ["starlette starts", "starlette stops"]


async def test_an_app_sees_what_an_instance_would_see(serve: Serve) -> None:
    """What is for one hop stops here, and nobody can say that he is somebody else."""
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        fields = (
            ("Connection", "x-private"),
            ("X-Private", "1"),
            ("X-Forwarded-For", "203.0.113.9"),
            ("X_Forwarded_For", "203.0.113.9"),
            ("X-Two", "a"),
            ("X-Two", "b"),
        )
        await client.send(ask("/", "GET", *fields))
        await client.read_response()

    (scope,) = puppet.scopes
    sent = dict(scope["headers"])
    assert sent[b"x-forwarded-for"] == b"127.0.0.1"
    assert [value for name, value in scope["headers"] if name == b"x-two"] == [b"a", b"b"]
    assert {b"connection", b"x-private", b"x_forwarded_for", b"via"} & set(sent) == set()
    assert (sent[b"host"], scope["client"], scope["scheme"]) == (
        b"shop.example",
        ("127.0.0.1", 0),
        "http",
    )


async def test_a_trusted_proxy_says_who_the_client_is(serve: Serve) -> None:
    routes = app_routes()
    async with (
        serve(routes, trusted_proxies="127.0.0.1/32,10.0.0.0/8") as gateway,
        RawClient(gateway.port) as client,
    ):
        chain = ("X-Forwarded-For", "203.0.113.9, 192.0.2.7, 10.0.0.1")
        await client.send(ask("/", "GET", chain, ("X-Forwarded-Proto", "https")))
        await client.read_response()

    (scope,) = puppet.scopes
    assert (scope["client"], scope["scheme"]) == (("192.0.2.7", 0), "https")


@pytest.mark.parametrize(
    ("target", "path", "root_path"),
    [("/shop/x%2Fy", "/shop/x/y", "/shop"), ("/shop", "/shop", "/shop")],
)
async def test_what_a_route_strips_is_where_the_app_stands(
    serve: Serve, target: str, path: str, root_path: str
) -> None:
    routes = app_routes(app_at("/shop", strip_prefix=True))
    async with serve(routes) as gateway, RawClient(gateway.port) as client:
        await client.send(ask(target))
        await client.read_response()

    (scope,) = puppet.scopes
    assert (scope["path"], scope["root_path"]) == (path, root_path)
    assert scope["raw_path"] == target.encode()


# --- Bodies --------------------------------------------------------------------------------------


@pytest.mark.both_faces
async def test_bodies_stream_both_ways_at_once(serve: Serve) -> None:
    async with serve(app_routes(app_at("/", "stream_back"))) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", ("Transfer-Encoding", "chunked")))
            assert (await client.read_head()).status == 200
            parts = []
            for part in (b"one", b"two", b"three"):
                await client.send(b"%x\r\n%b\r\n" % (len(part), part))
                parts.append(await client.read_part())
            await client.send(b"0\r\n\r\n")
            assert await client.read_part() == b""

    assert parts == [b"one", b"two", b"three"]


@pytest.mark.slow
async def test_an_app_that_does_not_receive_stops_the_client(serve: Serve) -> None:
    """Nor does what it never asks for pile up in the gateway."""
    may_go_on = asyncio.Event()
    sent, size_bytes = 0, 16 * MIB

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await may_go_on.wait()
        size = len(await body_of(receive))
        await answers(200, b"%d" % size)(scope, receive, send)

    async def upload() -> None:
        nonlocal sent
        for _ in range(16):
            await client.send(b"x" * MIB)
            sent += MIB

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask("/", "POST", ("Content-Length", str(size_bytes))))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(upload())
            taken_bytes = await settled_size(lambda: sent)
            may_go_on.set()
        answer = await client.read_response()

    assert taken_bytes < size_bytes / 2
    assert answer.body == b"%d" % size_bytes


async def test_a_client_that_does_not_read_stops_the_app(serve: Serve) -> None:
    sent = 0

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        while True:
            await send(piece(b"x" * 65536))
            sent += 1

    puppet.plays(part)
    async with serve(app_routes()) as gateway:
        async with RawClient(gateway.port, receive_buffer_bytes=64 * 1024) as client:
            await client.send(ask())
            sent_unread = await settled_size(lambda: sent)
            await client.read_head()
            while sent == sent_unread:
                assert await client.read_part()
        await wait_until(lambda: puppet.ended == 1)

    assert 0 < sent_unread < 256
    assert [type(error).__name__ for error in puppet.errors] == ["ClientLeftError"]


async def test_a_client_that_waits_for_100_gets_it_when_the_app_wants_the_body(
    serve: Serve,
) -> None:
    async with (
        serve(app_routes(app_at("/", "echo"))) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4")))
        assert await client.read_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        answer = await client.read_response()

    assert answer.body == b"/ body"


@fast_only
async def test_a_body_that_the_app_does_not_want_is_not_asked_for(serve: Serve) -> None:
    """Under ASGI the server says 100 itself."""
    puppet.plays(answers(417, b"no"))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4")))
        answer = await client.read_response()
        await client.expect_closed()

    assert (answer.status, answer.interim) == (417, [])


@pytest.mark.both_faces
@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_over_max_body_is_413(serve: Serve, framing: str) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    puppet.plays(part)
    async with (
        serve(app_routes(app_at("/", max_body=10))) as gateway,
        RawClient(gateway.port) as client,
    ):
        if framing == "length":
            await client.send(ask("/", "POST", body=b"x" * 11))
        else:
            await client.send(ask("/", "POST", ("Transfer-Encoding", "chunked")))
            await client.send(b"b\r\n%b\r\n" % (b"x" * 11))
        answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (413, [b"body_too_large"])


# --- What apps write -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_app_cannot_write_its_own_framing(serve: Serve, method: str) -> None:
    fields = (
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"5"),
        (b"connection", b"keep-alive, x-one-hop"),
        (b"x-one-hop", b"1"),
        (b"keep-alive", b"timeout=1"),
        (b"upgrade", b"h2c"),
    )
    puppet.plays(answers(200, b"hello", *fields))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        found = []
        for _ in range(2):
            await client.send(ask("/", method))
            found.append(await client.read_response(method.encode()))

    for answer in found:
        assert answer.body == (b"" if method == "HEAD" else b"hello")
        assert answer.values(b"content-length") == [b"5"]
        for name in (b"transfer-encoding", b"x-one-hop", b"keep-alive", b"upgrade"):
            assert answer.values(name) == []


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_none_whatever_the_app_sends(
    serve: Serve, status: int
) -> None:
    puppet.plays(answers(status, b"not wanted"))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        found = []
        for _ in range(2):
            await client.send(ask())
            found.append(await client.read_response())

    assert [(one.status, one.body) for one in found] == [(status, b"")] * 2


async def test_more_than_content_length_is_cut_and_logged(serve: Serve) -> None:
    puppet.plays(answers(200, b"hello, and more", (b"content-length", b"5")))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        found = []
        for _ in range(2):
            await client.send(ask())
            found.append((await client.read_response()).body)
        events = gateway.logged("app_failed")

    assert found == [b"hello", b"hello"]
    assert [one["why"] for one in events] == [
        "its body is longer than its Content-Length, and was cut there"
    ] * 2


@pytest.mark.both_faces
async def test_less_than_content_length_cuts_the_connection(serve: Serve) -> None:
    puppet.plays(answers(200, b"hel", (b"content-length", b"5")))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask())
        with pytest.raises(BrokenOffError):
            await client.read_response()


@fast_only
async def test_an_app_that_says_close_has_the_connection_closed(serve: Serve) -> None:
    """Under ASGI, connections are the server's."""
    puppet.plays(answers(200, b"bye", (b"Connection", b"close")))
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask())
        answer = await client.read_response()
        await client.expect_closed()

    assert (answer.body, answer.values(b"connection")) == (b"bye", [b"close"])


@fast_only
async def test_to_http_1_0_an_app_answers_without_chunks(serve: Serve) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"all "))
        await send(piece(b"of it", more=False))

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = await client.read_response()

    assert (answer.body, answer.values(b"transfer-encoding")) == (b"all of it", [])
    assert puppet.scopes[0]["http_version"] == "1.0"


async def test_a_head_leaves_though_the_body_takes_its_time(serve: Serve) -> None:
    may_go_on = asyncio.Event()

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-type", b"text/event-stream")))
        await may_go_on.wait()
        await send(piece(b"data: 1\n\n", more=False))

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask())
        assert (await client.read_head()).status == 200
        may_go_on.set()
        assert await client.read_part() == b"data: 1\n\n"


# --- Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],
        [start(), start()],
        [piece(b"x")],
        [start(101)],
        [start(200, (b"x-split", b"a\r\nset-cookie: b"))],
        [start(200, (b"content-length", b"1"), (b"content-length", b"2"))],
        [{"type": "http.response.start", "status": "200"}],
        [{"type": "http.response.start", "status": 200, "headers": [("x", "y")]}],
        [start(), {"type": "http.response.body", "body": "text"}],
        [{"type": "websocket.accept"}],
    ],
    ids=repr,
)
async def test_an_app_that_does_not_answer_is_500_and_the_connection_stays(
    serve: Serve, messages: list[dict[str, Any]]
) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask())
        answer = await client.read_response()
        puppet.plays(answers())
        await client.send(ask())
        following = await client.read_response()
        events = gateway.logged("app_failed")

    assert (answer.status, answer.values(b"x-gateway-reason")) == (500, [b"app_failed"])
    assert (following.status, following.body) == (200, b"ok")
    assert len(events) == 1


@pytest.mark.both_faces
async def test_an_app_that_raises_is_500_with_the_traceback_in_the_log_alone(
    serve: Serve,
) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("secret")

    puppet.plays(part)
    async with serve(app_routes(app_at("/", id="mine"))) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()
        (event,) = gateway.logged("app_failed")

    assert answer.status == 500
    assert b"secret" not in answer.body
    assert isinstance(event["exc_info"], ZeroDivisionError)
    assert event["route"] == "mine"
    assert event["request_id"] == json.loads(answer.body)["request_id"]


@pytest.mark.parametrize("how", ["raises", "returns"])
async def test_an_app_that_breaks_off_inside_the_body_cuts_the_connection(
    serve: Serve, how: str
) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"half"))
        if how == "raises":
            raise KeyError("mine")

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask())
        with pytest.raises(BrokenOffError) as broken:
            await client.read_response()

    assert broken.value.answer is not None
    assert broken.value.answer.status == 200


async def test_an_app_that_raises_after_its_answer_is_only_logged(serve: Serve) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await answers()(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        raise KeyError("in the background")

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        for _ in range(2):
            await client.send(ask())
            assert (await client.read_response()).body == b"ok"
        await wait_until(lambda: len(gateway.logged("app_failed")) == 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "status", "reason"),
    [
        ({"timeouts": {"response": "100ms"}}, 504, b"head_timeout"),
        ({"timeouts": {"request": "100ms"}}, 504, b"request_deadline"),
    ],
    ids=["response", "request"],
)
async def test_an_app_that_does_not_answer_in_time_is_504_and_cancelled(
    serve: Serve, route: dict[str, Any], status: int, reason: bytes
) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    puppet.plays(part)
    async with (
        serve(app_routes(app_at("/", **route))) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask())
        answer = await client.read_response()
        await wait_until(lambda: puppet.ended == 1)

    assert (answer.status, answer.values(b"x-gateway-reason")) == (status, [reason])
    assert [type(error) for error in puppet.errors] == [asyncio.CancelledError]


@pytest.mark.slow
async def test_an_upload_that_comes_to_a_halt_is_408(serve: Serve) -> None:
    async with (
        serve(app_routes(app_at("/", "echo")), client_body_timeout="100ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask("/", "POST", ("Content-Length", "10")) + b"some")
        answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (408, [b"request_timeout"])


@pytest.mark.both_faces
async def test_an_app_is_told_when_its_client_leaves(serve: Serve) -> None:
    told: list[str] = []

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        told.append((await receive())["type"])
        with pytest.raises(OSError, match="the client left"):
            await send(start())

    puppet.plays(part)
    async with serve(app_routes()) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask())
            await wait_until(lambda: puppet.scopes)
        await wait_until(lambda: puppet.ended == 1)
        assert gateway.logged("app_failed") == []

    assert told == ["http.disconnect"]


@pytest.mark.slow
async def test_an_app_that_does_not_notice_that_its_client_left_is_cancelled(
    serve: Serve,
) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    puppet.plays(part)
    async with serve(app_routes()) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask())
            await wait_until(lambda: puppet.scopes)
        await wait_until(lambda: puppet.ended == 1)

    assert [type(error) for error in puppet.errors] == [asyncio.CancelledError]


async def test_websockets_are_refused_on_routes_of_this_process(serve: Serve) -> None:
    offer = (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask("/", "GET", *offer))
        answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (501, [b"not_implemented"])
    assert puppet.scopes == []


# --- The way out ---------------------------------------------------------------------------------


@pytest.mark.both_faces
async def test_an_app_in_hand_is_finished_when_the_gateway_stops(serve: Serve) -> None:
    may_answer = asyncio.Event()

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await answers()(scope, receive, send)

    puppet.plays(part)
    async with serve(app_routes()) as gateway, RawClient(gateway.port) as client:
        await client.send(ask())
        await wait_until(lambda: puppet.scopes)
        gateway.stop()
        may_answer.set()
        answer = await client.read_response()
        await client.expect_closed()

    assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.slow
async def test_an_app_that_takes_longer_than_the_drain_is_answered_for(tmp_path: Path) -> None:
    (tmp_path / "waits_for_ever.py").write_text(
        "import asyncio\n"
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    print('asked', flush=True)\n"
        "    await asyncio.Event().wait()\n",
        encoding="utf-8",
    )
    routes = routes_file({}, {"match": {"path": "/"}, "app": "waits_for_ever:app"})
    async with (
        GatewayRun(routes, tmp_path, drain_timeout="200ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask())
        await wait_until(lambda: "asked" in (tmp_path / "stdout").read_text(encoding="utf-8"))
        gateway.signal(signal.SIGTERM)
        answer = await client.read_response()
        assert await gateway.ended() == 0

    assert (answer.status, answer.values(b"x-gateway-reason")) == (503, [b"draining"])
    assert "Traceback" not in gateway.said


@pytest.mark.slow
async def test_an_app_that_cannot_start_ends_gateway_run_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "fails_to_start.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    message = 'no database'\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': message})\n",
        encoding="utf-8",
    )
    routes = routes_file({}, {"match": {"path": "/"}, "app": "fails_to_start:app", "id": "mine"})
    gateway = GatewayRun(routes, tmp_path)
    gateway.launch()

    assert await gateway.ended() == 1
    assert gateway.said.splitlines()[-1] == (
        "gateway: the app of route 'mine' could not start: no database"
    )
    assert "Traceback" not in gateway.said
