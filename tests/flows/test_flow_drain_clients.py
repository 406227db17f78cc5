"""SIGTERM seen by clients that are there: who is served, who is closed, in which order, and when.

Nothing here goes by the time that something takes: each story says who waits for whom.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.client import Answer, BrokenOffError, RawClient
from tests.fakes.gateway import RunningGateway, ask, routes_file, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.peer import Peer
from tests.fakes.scenes import chunk, head, hold, play, respond
from tests.fakes.tls import Authority, SecuredClient
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow

PROXY = b"PROXY UNKNOWN\r\n"
HTTP10 = b"GET / HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\n"
WEBSOCKET = ask(
    "/",
    "GET",
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
ENDLESS_APP = """\
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        await asyncio.sleep(0.02)

class middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)
"""
STUBBORN_APP = """\
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"tick", "more_body": True})
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""


def secured(folder: Path) -> tuple[Authority, dict[str, str]]:
    """Give an authority, and the settings of a listener for TLS with its certificate."""
    authority = Authority(folder / "certificates")
    pair = authority.pair("localhost")
    return authority, {
        "tls_bind": "127.0.0.1:0",
        "tls_cert": str(pair.cert),
        "tls_key": str(pair.key),
    }


async def all_of(client: RawClient) -> None:
    while await client.read_part():
        pass


async def asked_late(client: RawClient, request: bytes) -> Answer:
    await client.send(request)
    answer = await client.read_response()
    await client.expect_closed()
    return answer


async def test_who_was_accepted_and_who_is_idle_is_served_after_the_signal(tmp_path: Path) -> None:
    """Each of them may have sent its request before it could know of anything."""
    authority, over_tls = secured(tmp_path)
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            GatewayRun(routes_to(web), tmp_path, drain_idle="60s", drain_timeout="60s", **over_tls)
        )
        plain = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(3)]
        idle, old, _silent = plain
        over = [await stack.enter_async_context(SecuredClient(gateway.tls_port)) for _ in range(3)]
        idle_over_tls, silent_over_tls, late_over_tls = over
        for one in (idle_over_tls, silent_over_tls):
            await one.secure(authority.client_context())
        for client, request in ((idle, ask()), (old, HTTP10), (idle_over_tls, ask())):
            await client.send(request)
            assert (await client.read_response()).status == 200

        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("draining")
        await late_over_tls.secure(authority.client_context())  # it was accepted without a word
        late = [await asked_late(client, ask()) for client in (*plain, *over) if client is not old]
        late.append(await asked_late(old, HTTP10))
        code = await gateway.ended()

        assert [one.status for one in late] == [200] * 6
        assert [one.values(b"connection") for one in late] == [[b"close"]] * 6
        assert code == 0
        assert gateway.leftovers() == []


@pytest.mark.parametrize("variables", [{"proxy_protocol": "on"}, {"http_redirect": "on"}])
async def test_other_listeners_serve_them_too(tmp_path: Path, variables: dict[str, str]) -> None:
    _, over_tls = secured(tmp_path)
    is_proxied = "proxy_protocol" in variables
    given = {**variables, **over_tls, "trusted_proxies": "127.0.0.0/8", "drain_timeout": "60s"}
    first = PROXY if is_proxied else b""
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_idle="60s", **given) as gateway,
        RawClient(gateway.port) as idle,
        RawClient(gateway.port) as silent,
    ):
        await idle.send(first + ask())
        before = await idle.read_response()
        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("draining")
        late = [await asked_late(idle, ask()), await asked_late(silent, first + ask())]
        code = await gateway.ended()

        status = 200 if is_proxied else 308
        assert (before.status, before.values(b"connection")) == (status, [])
        assert [one.status for one in late] == [status] * 2
        assert [one.values(b"connection") for one in late] == [[b"close"]] * 2
        assert code == 0


async def test_who_waits_in_the_backlog_when_the_signal_comes_is_served(tmp_path: Path) -> None:
    """The kernel has accepted for a process that is not running at that moment."""
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(GatewayRun(routes_to(web), tmp_path))
        gateway.signal(signal.SIGSTOP)
        waiting = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(150)]
        for client in waiting[::2]:
            await client.send(ask())
        gateway.signal(signal.SIGTERM)
        gateway.signal(signal.SIGCONT)
        await gateway.wait_for("draining")
        for client in waiting[1::2]:
            await client.send(ask())
        answers = [await client.read_response() for client in waiting]
        code = await gateway.ended()

        assert {one.status for one in answers} == {200}
        assert len(web.requests) == 150
        assert code == 0


async def test_the_answer_in_hand_says_that_it_is_the_last(tmp_path: Path) -> None:
    released = asyncio.Event()
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_delay="60s") as gateway,
        RawClient(gateway.port) as client,
    ):
        web.on_request(play(hold(released), respond()))
        await client.send(ask())
        await web.wait_until(lambda: len(web.requests) == 1)
        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("drain_waiting")
        released.set()
        answer = await client.read_response()

        assert answer.values(b"connection") == [b"close"]


async def test_idle_ones_are_closed_in_the_end_the_longest_idle_first(tmp_path: Path) -> None:
    order: list[int] = []

    async def note_end(number: int, client: RawClient) -> None:
        await client.expect_closed()
        order.append(number)

    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            RunningGateway(
                routes_to(web), face="fast", folder=tmp_path, drain_idle_s=0.2, drain_timeout_s=30
            )
        )
        open_ones = gateway.gateway.deadlines.watched
        clients: list[RawClient] = []
        for _ in range(8):
            client = RawClient(gateway.port)
            clients.append(await stack.enter_async_context(client))
            await wait_until(lambda: len(open_ones) == len(clients))
        async with asyncio.TaskGroup() as tasks:
            for number, client in reversed(list(enumerate(clients))):
                tasks.create_task(note_end(number, client))
            gateway.stop()

        assert order == list(range(8))


async def test_ctrl_c_closes_idle_ones_at_once_and_finishes_the_rest(tmp_path: Path) -> None:
    """Whoever types it waits for the prompt; the minutes given here are not waited for."""
    released = asyncio.Event()
    async with (
        ScriptedUpstream() as web,
        GatewayRun(
            routes_to(web), tmp_path, drain_idle="10m", drain_timeout="10m", drain_delay="10m"
        ) as gateway,
        RawClient(gateway.port) as silent,
        RawClient(gateway.port) as busy,
    ):
        web.on_request(play(hold(released), respond(body=b"late")))
        await busy.send(ask())
        await web.wait_until(lambda: len(web.requests) == 1)
        gateway.signal(signal.SIGINT)
        await silent.expect_closed()
        released.set()
        answer = await busy.read_response()

        assert (answer.status, answer.body) == (200, b"late")
        assert await gateway.ended() == 0


async def test_when_nobody_is_there_nothing_is_waited_for(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_idle="10m", drain_timeout="10m") as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.send(ask())
            await client.read_response()
        gateway.signal(signal.SIGTERM)

        assert await gateway.ended() == 0


async def test_websockets_are_told_before_what_is_in_hand_is_cut(tmp_path: Path) -> None:
    """Spread over the last third: all of their clients come back at once otherwise."""
    order: list[str] = []

    async def upgrade(peer: Peer) -> None:
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        await asyncio.Event().wait()

    async def told(number: int, client: RawClient) -> None:
        assert await client.read_exactly(4) == b"\x88\x02\x03\xe9"
        order.append(f"tunnel {number}")

    async def refused(client: RawClient) -> None:
        assert (await client.read_response()).status == 503
        order.append("request")

    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        web.on_request(*[upgrade] * 3, hold(asyncio.Event()))
        routes = routes_to(web, upgrade=["websocket"])
        gateway = await stack.enter_async_context(
            GatewayRun(routes, tmp_path, drain_timeout="1500ms")
        )
        clients = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(4)]
        for client in clients[:3]:
            await client.send(WEBSOCKET)
            assert (await client.read_head()).status == 101
        await clients[3].send(ask())
        await web.wait_until(lambda: len(web.requests) == 4)
        async with asyncio.TaskGroup() as tasks:
            for number, client in enumerate(clients[:3]):
                tasks.create_task(told(number, client))
            tasks.create_task(refused(clients[3]))
            gateway.signal(signal.SIGTERM)

        assert order[-1] == "request"
        assert await gateway.ended() == 0


@pytest.mark.parametrize(
    "route", [{"app": "endless_gently:app"}, {"middleware": [{"use": "endless_gently:middleware"}]}]
)
async def test_a_stream_through_this_process_is_cut_when_its_time_is_over(
    tmp_path: Path, route: dict[str, object]
) -> None:
    async def endless(peer: Peer) -> None:
        await peer.send(head(200, [(b"Transfer-Encoding", b"chunked")]))
        while True:
            await peer.send(chunk(b"tick"))
            await asyncio.sleep(0.02)  # the pace of the stream

    (tmp_path / "endless_gently.py").write_text(ENDLESS_APP, encoding="utf-8")
    async with ScriptedUpstream() as web:
        web.on_request(endless)
        match = {"match": {"path": "/"}}
        to_service = {**match, "service": "web"}
        servers = {"web": {"servers": [f"http://127.0.0.1:{web.port}"]}}
        routes = routes_file(servers, {**(match if "app" in route else to_service), **route})
        async with (
            GatewayRun(routes, tmp_path, drain_timeout="300ms") as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            await client.read_head()
            assert await client.read_part() == b"tick"
            gateway.signal(signal.SIGTERM)
            with pytest.raises((BrokenOffError, ConnectionResetError)):
                await all_of(client)

            assert await gateway.ended() == 0
            assert [one["failure"] for one in gateway.requests] == ["draining"]


BLOCKING_APP = """
import time

async def app(scope, receive, send):
    assert scope["type"] == "http"
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass
"""


@pytest.mark.soak
async def test_a_second_signal_ends_it_though_an_app_stops_the_loop(tmp_path: Path) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING_APP, encoding="utf-8")
    routes = routes_file({}, {"match": {"path": "/"}, "app": "blocking:app"})
    async with (
        GatewayRun(routes, tmp_path, drain_timeout="10m") as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask())
        await asyncio.sleep(0.5)  # from then on nobody answers
        gateway.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)  # two that come at the same time are one
        gateway.signal(signal.SIGTERM)

        assert await gateway.ended() == 1
        assert len(gateway.logged("end_overdue")) == 1


@pytest.mark.soak
async def test_an_app_that_does_not_let_itself_be_cancelled_does_not_keep_the_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN_APP, encoding="utf-8")
    routes = routes_file({}, {"match": {"path": "/"}, "app": "stubborn:app"})
    async with (
        GatewayRun(routes, tmp_path, drain_timeout="300ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.send(ask())
        await client.read_head()
        gateway.signal(signal.SIGTERM)

        assert await gateway.ended() == 1
        (event,) = gateway.logged("end_overdue")
        assert any(name.startswith("app:") for name in event["tasks"])
