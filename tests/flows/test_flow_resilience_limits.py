"""More requests than there is room for: who waits, who goes first, who is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from gateway.core.breaker import BreakerState
from gateway.proxy.exchange import Exchange
from tests.fakes.client import Answer, RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, fast_only, routes_file, routes_to
from tests.fakes.load import hammer
from tests.fakes.scenes import echo, head, hold, play, reply, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

HELD = {"max_concurrency": 1, "max_queue": 2, "max_queue_wait": "5s"}


@asynccontextmanager
async def held_upstream() -> AsyncIterator[tuple[ScriptedUpstream, asyncio.Event]]:
    """Run an instance that answers nothing until its event is set."""
    async with ScriptedUpstream() as web:
        is_free = asyncio.Event()
        web.on_request(play(hold(is_free), respond()))
        yield web, is_free


class Crowd:
    """Clients that ask at the same time, each over its own connection, one after the other."""

    def __init__(self, gateway: RunningGateway, stack: AsyncExitStack) -> None:
        self.gateway = gateway
        self._stack = stack
        self.clients: list[RawClient] = []

    async def ask(self, target: str = "/") -> RawClient:
        """Let one more client ask, and give it time to be seen."""
        client = await self._stack.enter_async_context(RawClient(self.gateway.port))
        await client.send(ask(target))
        self.clients.append(client)
        before = len(self.gateway.gateway.deadlines.watched)
        await wait_until(lambda: self._is_seen(before))
        return client

    def _is_seen(self, before: int) -> bool:
        gates = self.gateway.gateway.engine.loads.gates.values()
        seen = sum(gate.in_flight + gate.waiting + gate.refused for gate in gates)
        return seen >= len(self.clients) or before == 0


def detail_of(answer: Answer) -> tuple[str, str]:
    problem: dict[str, Any] = json.loads(answer.body)
    return problem["reason"], problem["detail"]


async def test_one_is_answered_two_wait_and_the_fourth_is_refused(serve: Serve) -> None:
    async with held_upstream() as (web, is_free), AsyncExitStack() as stack:
        async with serve(routes_to(web, service=HELD)) as gateway:
            crowd = Crowd(gateway, stack)
            clients = [await crowd.ask() for _ in range(4)]
            refused = await clients[3].read_response()
            asked_before = len(web.requests)
            is_free.set()
            answers = [await client.read_response() for client in clients[:3]]
            await stack.aclose()

    assert (refused.status, refused.values(b"retry-after")) == (503, [b"1"])
    assert detail_of(refused) == ("over_capacity", "service 'web' has 1 in hand already")
    assert asked_before == 1
    assert [answer.status for answer in answers] == [200] * 3


async def test_whoever_waits_too_long_is_refused(serve: Serve) -> None:
    limits = {**HELD, "max_queue_wait": "200ms"}
    async with held_upstream() as (web, is_free), AsyncExitStack() as stack:
        async with serve(routes_to(web, service=limits)) as gateway:
            crowd = Crowd(gateway, stack)
            first, second = await crowd.ask(), await crowd.ask()
            refused = await second.read_response()
            is_free.set()
            answer = await first.read_response()
            await stack.aclose()

    assert detail_of(refused)[0] == "over_capacity"
    assert "came free in 200ms" in detail_of(refused)[1]
    assert answer.status == 200


async def test_who_matters_more_goes_first_and_what_is_sheddable_does_not_wait(
    serve: Serve,
) -> None:
    async with held_upstream() as (web, is_free), AsyncExitStack() as stack:
        services = {"web": {"servers": [f"http://127.0.0.1:{web.port}"], **HELD, "max_queue": 3}}
        routes = routes_file(
            services,
            {"match": {"path_prefix": "/"}, "service": "web"},
            {"match": {"path_prefix": "/vip"}, "service": "web", "priority_class": "critical"},
            {"match": {"path_prefix": "/shed"}, "service": "web", "priority_class": "sheddable"},
        )
        async with serve(routes) as gateway:
            crowd = Crowd(gateway, stack)
            await crowd.ask("/first")
            await crowd.ask("/usual")
            await crowd.ask("/vip")
            shed = await (await crowd.ask("/shed")).read_response()
            is_free.set()
            for client in crowd.clients[:3]:
                await client.read_response()
            await stack.aclose()

    assert detail_of(shed)[0] == "over_capacity"
    assert [one.target for one in web.requests] == [b"/first", b"/vip", b"/usual"]


async def test_the_gateway_as_a_whole_has_a_limit_too(serve: Serve) -> None:
    async with held_upstream() as (web, is_free), AsyncExitStack() as stack:
        async with serve(routes_to(web), max_concurrency=1, max_queue=0) as gateway:
            clients = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(2)]
            await clients[0].send(ask())
            await wait_until(lambda: web.requests)
            await clients[1].send(ask())
            refused = await clients[1].read_response()
            is_free.set()
            answer = await clients[0].read_response()
            await stack.aclose()

    assert detail_of(refused) == ("over_capacity", "the gateway has 1 in hand already")
    assert answer.status == 200


@pytest.mark.both_faces
async def test_a_client_that_leaves_the_queue_is_never_sent_for(serve: Serve) -> None:
    async with held_upstream() as (web, is_free), AsyncExitStack() as stack:
        async with serve(routes_to(web, service=HELD)) as gateway:
            gate = gateway.gateway.engine.loads.gates["web"]
            crowd = Crowd(gateway, stack)
            first, leaving = await crowd.ask("/first"), await crowd.ask("/leaving")
            leaving.reset()
            await wait_until(lambda: gate.waiting == 0)
            is_free.set()
            await first.read_response()
            await stack.aclose()

    assert [one.target for one in web.requests] == [b"/first"]


async def test_each_instance_gets_no_more_than_it_takes(serve: Serve) -> None:
    async with held_upstream() as (web, is_free), ScriptedUpstream() as other:
        other.on_request(play(hold(is_free), respond()))
        routes = routes_to(web, other, service={"max_connections": 2})
        async with serve(routes) as gateway, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(5)]
            for number, client in enumerate(clients[:4]):
                await client.send(ask())
                await wait_until(lambda: len(web.requests) + len(other.requests) > number)  # noqa: B023 -- waited for here
            await clients[4].send(ask())
            refused = await clients[4].read_response()
            is_free.set()
            for client in clients[:4]:
                assert (await client.read_response()).status == 200

        assert detail_of(refused)[0] == "over_capacity"
        assert (len(web.connections), len(other.connections)) == (2, 2)


@pytest.mark.both_faces
async def test_slow_uploads_keep_no_request_out(serve: Serve) -> None:
    """Ten clients at a byte each 8 s took all of max_concurrency: 10."""
    limits = {"max_concurrency": 1, "max_queue": 0}
    form = (("Content-Length", "5"),)
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        async with serve(routes_to(web, service=limits)) as gateway:
            slow = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(3)]
            watched = gateway.gateway.deadlines.watched
            for number, one in enumerate(slow, 1):
                await one.send(ask("/up", "POST", *form) + b"h")
                await wait_until(lambda: exchanges(watched) == number)  # noqa: B023 -- waited for here
            async with RawClient(gateway.port) as other:
                await other.send(ask())
                assert (await other.read_response()).status == 200
            assert [one.target for one in web.requests] == [b"/"]
            for one in slow:
                await one.send(b"ello")
                assert (await one.read_response()).status == 200
            await stack.aclose()

    assert [one.body for one in web.requests[1:]] == [b"hello"] * 3


@pytest.mark.both_faces
async def test_a_trickling_upload_is_408(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for: its place, or the rest of a body that has one."""
    monkeypatch.setattr("gateway.core.pace.WINDOW_S", 0.3)
    for limits in ({}, {"max_concurrency": 1}):
        async with ScriptedUpstream() as web, serve(routes_to(web, service=limits)) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask("/up", "POST", ("Content-Length", "5000")) + b"h")
                answer = await client.read_response()
            assert gateway.member(web).breaker.state(0.0) is BreakerState.CLOSED

        assert (answer.status, detail_of(answer)[0]) == (408, "request_timeout")
        assert "min_rate" in detail_of(answer)[1]


def exchanges(watched: set[Any]) -> int:
    return sum(isinstance(one, Exchange) for one in watched)


@fast_only
async def test_idle_websockets_keep_no_request_out_and_have_a_limit_of_their_own(
    serve: Serve,
) -> None:
    """Ten of them took all of max_concurrency: 10, for as long as they liked."""
    limits = {
        "max_concurrency": 1,
        "max_concurrency_per_instance": 1,
        "max_queue": 0,
        "max_tunnels": 3,
    }
    switch = head(101, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
    offer = ask("/ws", "GET", ("Connection", "Upgrade"), ("Upgrade", "websocket"))
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        async with serve(routes_to(web, service=limits)) as gateway:
            web.on_request(*[play(reply(switch), echo())] * 3, play(respond()))
            tunnels = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(4)]
            for one in tunnels[:3]:
                await one.send(offer)
                assert (await one.read_response()).status == 101
            asked = len(web.requests)
            await tunnels[3].send(offer)
            refused = await tunnels[3].read_response()
            assert len(web.requests) == asked
            async with RawClient(gateway.port) as other:
                await other.send(ask())
                assert (await other.read_response()).status == 200
            await tunnels[0].send(b"\x81\x80mask")
            assert await tunnels[0].read_exactly(6) == b"\x81\x80mask"
            load = (await gateway.ask_admin("/api/services/web"))["load"]
            await stack.aclose()

    assert detail_of(refused) == ("over_capacity", "service 'web' has 3 tunnels already")
    assert load["tunnels"] == {"max_tunnels": 3, "open": 3, "refused": 1}
    assert load["limit"]["in_hand"] == 0


@fast_only
@pytest.mark.slow
async def test_a_new_connection_takes_the_place_of_an_idle_one(serve: Serve) -> None:
    """What may not be sent twice gets no connection that was idle for long."""
    async with ScriptedUpstream() as web:
        routes = routes_to(web, service={"max_connections": 1})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            for method, pause_s in (("GET", 1.2), ("POST", 0.0)):
                await client.send(ask("/", method))
                assert (await client.read_response()).status == 200
                await asyncio.sleep(pause_s)

            assert len(web.connections) == 2
            await wait_until(lambda: [one.is_open() for one in web.connections] == [False, True])


@pytest.mark.slow
async def test_an_adaptive_limit_refuses_nobody_while_there_is_room(serve: Serve) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        limits = {"max_concurrency": "auto", "max_queue": 64, "max_queue_wait": "5s"}
        async with serve(routes_to(one, two, service=limits)) as gateway:
            url = f"http://127.0.0.1:{gateway.port}/"
            load = await hammer(url, total=3000, concurrency=64)
            gate = gateway.gateway.engine.loads.gates["web"]
            limit = gate.limit

    assert load.statuses == {200: 3000}
    assert limit >= 4


# --- How much time is left -----------------------------------------------------------------------


async def test_an_instance_is_told_how_long_its_answer_is_waited_for(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        routes = routes_to(web, timeouts={"request": "4s"}, deadline_header="X-Request-Timeout-Ms")
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "GET", ("X-Request-Timeout-Ms", "1")))
            answer = await client.read_response()

        (told,) = web.requests[0].values(b"x-request-timeout-ms")
        assert answer.status == 200
        assert 3500 < int(told) <= 4000


async def test_what_a_trusted_proxy_says_of_the_time_holds(serve: Serve) -> None:
    async with held_upstream() as (web, is_free):
        routes = routes_to(web, deadline_header="X-Request-Timeout-Ms")
        async with (
            serve(routes, trusted_proxies="127.0.0.0/8") as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask("/", "GET", ("X-Request-Timeout-Ms", "300")))
            answer = await client.read_response()
            is_free.set()

        (told,) = web.requests[0].values(b"x-request-timeout-ms")
        assert int(told) <= 300
        assert (answer.status, detail_of(answer)[0]) == (504, "client_deadline")


@fast_only  # servers of ASGI take the next request when the app has returned
async def test_the_next_request_of_a_pipeline_is_not_in_the_way_of_itself(serve: Serve) -> None:
    """The place is free when the answer leaves, for that lets the next request in."""
    async with ScriptedUpstream() as web:
        web.on_request(respond())
        async with serve(routes_to(web), max_concurrency=1, max_queue=0) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask() * 3)
                answers = [await client.read_response() for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
