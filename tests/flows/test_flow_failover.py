"""An instance fails and the next one gets the request, where it may be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.load import hammer
from tests.fakes.peer import Peer
from tests.fakes.scenes import app, close, half_body, head, play, reply, reset, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

Break = Callable[[ScriptedUpstream], Awaitable[None]]


async def refuses(upstream: ScriptedUpstream) -> None:
    await upstream.refuse()


async def resets_at_once(upstream: ScriptedUpstream) -> None:
    upstream.on_connect(reset())


async def closes_before_it_answers(upstream: ScriptedUpstream) -> None:
    upstream.on_request(close())


async def resets_before_it_answers(upstream: ScriptedUpstream) -> None:
    upstream.on_request(reset())


async def breaks_off_inside_the_head(upstream: ScriptedUpstream) -> None:
    upstream.on_request(play(reply(b"HTTP/1.1 200 OK\r\nX-Half: "), close()))


async def talks_something_else(upstream: ScriptedUpstream) -> None:
    upstream.on_request(reply(b"220 mail.example ESMTP\r\n"))


async def answers_503(upstream: ScriptedUpstream) -> None:
    upstream.on_request(respond(503, b"busy"))


NOTHING_WAS_SENT = [refuses]
SOMETHING_WAS_SENT = [
    closes_before_it_answers,
    resets_before_it_answers,
    breaks_off_inside_the_head,
    talks_something_else,
    answers_503,
]
WAYS = [*NOTHING_WAS_SENT, resets_at_once, *SOMETHING_WAS_SENT]


@asynccontextmanager
async def sick_and_well(
    serve: Serve, breaks: Break
) -> AsyncIterator[tuple[ScriptedUpstream, ScriptedUpstream, RunningGateway]]:
    """Run two instances, the first of them broken; the Breaker stays out of it."""
    async with ScriptedUpstream() as sick, ScriptedUpstream() as well:
        await breaks(sick)
        patient = {"consecutive_failures": 1000, "min_requests": 1000}
        routes = routes_to(sick, well, service={"circuit_breaker": patient})
        async with serve(routes) as gateway:
            yield sick, well, gateway


async def until_the_sick_one_was_tried(
    gateway: RunningGateway, client: RawClient, request: bytes, sick: ScriptedUpstream
) -> list[int]:
    """Ask until chance has chosen the sick one; return the statuses that the client saw."""
    statuses: list[int] = []
    while gateway.member(sick).breaker._failed == 0:
        assert len(statuses) < 200, "chance never chose the sick one"
        await client.send(request)
        statuses.append((await client.read_response()).status)
    return statuses


@pytest.mark.both_faces
@pytest.mark.parametrize("breaks", WAYS)
async def test_a_get_goes_to_the_next_instance(serve: Serve, breaks: Break) -> None:
    async with sick_and_well(serve, breaks) as (sick, _well, gateway):
        async with RawClient(gateway.port) as client:
            statuses = await until_the_sick_one_was_tried(gateway, client, ask(), sick)

    assert set(statuses) == {200}


@pytest.mark.parametrize("breaks", NOTHING_WAS_SENT)
async def test_a_post_goes_to_the_next_instance_when_nothing_of_it_was_sent(
    serve: Serve, breaks: Break
) -> None:
    async with sick_and_well(serve, breaks) as (sick, well, gateway):
        async with RawClient(gateway.port) as client:
            request = ask("/", "POST", body=b"money")
            statuses = await until_the_sick_one_was_tried(gateway, client, request, sick)

        assert set(statuses) == {200}
        assert [bytes(one.body) for one in well.requests] == [b"money"] * len(statuses)
        assert sick.requests == []


@pytest.mark.both_faces
@pytest.mark.parametrize("breaks", SOMETHING_WAS_SENT)
async def test_a_post_is_not_sent_twice_once_any_of_it_went_out(
    serve: Serve, breaks: Break
) -> None:
    async with sick_and_well(serve, breaks) as (sick, well, gateway):
        statuses: list[int] = []
        while not sick.requests:
            assert len(statuses) < 200, "chance never chose the sick one"
            async with RawClient(gateway.port) as client:
                await client.send(ask(f"/{len(statuses)}", "POST", body=b"money"))
                statuses.append((await client.read_response()).status)

        assert statuses[-1] in {502, 503}
        targets = [one.target for one in (*sick.requests, *well.requests)]
        assert sorted(targets) == sorted(b"/%d" % number for number in range(len(statuses)))


@pytest.mark.parametrize("breaks", SOMETHING_WAS_SENT)
async def test_a_put_is_sent_again_with_its_whole_body(serve: Serve, breaks: Break) -> None:
    body = bytes(range(256)) * 100
    async with sick_and_well(serve, breaks) as (sick, well, gateway):
        async with RawClient(gateway.port) as client:
            request = ask("/", "PUT", body=body)
            statuses = await until_the_sick_one_was_tried(gateway, client, request, sick)

        assert set(statuses) == {200}
        assert {bytes(one.body) for one in well.requests} == {body}
        assert len(well.requests) == len(statuses)


async def test_a_retriable_answer_is_passed_on_when_nobody_else_is_left(serve: Serve) -> None:
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        web.on_request(respond(503, b"busy", [(b"X-Who", b"web")]))
        other.on_request(respond(503, b"busy", [(b"X-Who", b"other")]))
        async with serve(routes_to(web, other)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

        assert (answer.status, answer.body) == (503, b"busy")
        assert answer.values(b"x-gateway-reason") == []
        assert len(web.requests) + len(other.requests) == 2


async def test_attempts_are_counted_all_together(serve: Serve) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two, ScriptedUpstream() as three:
        everybody = (one, two, three)
        for upstream in everybody:
            upstream.on_request(close())
        routes = routes_to(*everybody, retry={"attempts": 2})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

        assert answer.status == 502
        assert sorted(len(upstream.requests) for upstream in everybody) == [0, 1, 1]


async def test_a_connection_that_went_stale_is_nobodys_fault(serve: Serve) -> None:
    """The instance closes it just as the request is on its way; the same one is asked again."""
    asked_twice = asyncio.Event()

    async def once_then_vanish(peer: Peer) -> None:
        await respond()(peer)
        if not asked_twice.is_set():
            await peer.read_head()
            asked_twice.set()
            peer.reset()

    async with ScriptedUpstream() as web:
        web.on_request(once_then_vanish)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            statuses = []
            for _ in range(2):
                await client.send(ask())
                statuses.append((await client.read_response()).status)
            blamed = gateway.member(web).breaker._failed

        assert statuses == [200, 200]
        assert asked_twice.is_set()
        assert blamed == 0


async def test_an_idle_connection_that_was_closed_is_not_used(serve: Serve) -> None:
    """Not even for a POST, which must not be sent twice."""
    async with ScriptedUpstream() as web:
        web.on_request(play(respond(), close()))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            statuses = []
            for _ in range(5):
                await client.send(ask("/", "POST", body=b"once"))
                statuses.append((await client.read_response()).status)
                pool = gateway.member(web).pool
                await wait_until(lambda: pool._idle == [])  # noqa: B023 -- waited for here

        assert statuses == [200] * 5
        assert len(web.requests) == 5


@pytest.mark.soak
async def test_killing_one_of_two_under_load_is_seen_by_nobody(serve: Serve) -> None:
    """Killed with requests in hand and connections open; 200 clients at once, all with GET."""
    async with ScriptedUpstream() as killed, ScriptedUpstream() as other:
        routes = routes_to(killed, other)

        async def kill() -> None:
            await killed.wait_until(lambda: len(killed.requests) > 300)
            await killed.refuse()
            await killed.drop()

        async with serve(routes) as gateway, asyncio.TaskGroup() as tasks:
            tasks.create_task(kill())
            url = f"http://127.0.0.1:{gateway.port}/"
            load = await hammer(url, total=3000, concurrency=200)

        assert load.errors == []
        assert load.statuses == {200: 3000}
        assert len(killed.requests) > 300


async def test_both_instances_get_their_share(serve: Serve) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        one.on_request(app(lambda _: respond(body=b"one")))
        two.on_request(app(lambda _: respond(body=b"two")))
        async with serve(routes_to(one, two)) as gateway:
            load = await hammer(f"http://127.0.0.1:{gateway.port}/", total=400, concurrency=8)

    assert load.errors == []
    assert min(load.bodies[b"one"], load.bodies[b"two"]) > 100


@pytest.mark.both_faces
async def test_the_head_of_the_answer_is_the_point_of_no_return(serve: Serve) -> None:
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        for upstream in (web, other):
            upstream.on_request(play(half_body(), reset()))
        async with serve(routes_to(web, other)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_head()
            with pytest.raises(BrokenOffError):
                await read_to_the_end(client)

        assert answer.status == 200
        assert len(web.requests) + len(other.requests) == 1


async def read_to_the_end(client: RawClient) -> None:
    while await client.read_part():
        pass


async def test_an_answer_of_100_only_is_no_answer(serve: Serve) -> None:
    async with sick_and_well(serve, only_interim) as (sick, _well, gateway):
        async with RawClient(gateway.port) as client:
            statuses = await until_the_sick_one_was_tried(gateway, client, ask(), sick)

    assert set(statuses) == {200}


async def only_interim(upstream: ScriptedUpstream) -> None:
    upstream.on_request(play(reply(head(103)), close()))
