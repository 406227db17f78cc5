"""A second instance is asked when the first takes long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.load import hammer
from tests.fakes.peer import Peer
from tests.fakes.scenes import chunked, hold, play, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until


async def test_an_instance_that_hangs_is_not_waited_for(serve: Serve) -> None:
    never = asyncio.Event()
    async with ScriptedUpstream() as slow, ScriptedUpstream() as quick:
        slow.on_request(play(hold(never), respond(body=b"slow")))
        quick.on_request(chunked(b"qui", b"ck", trailers=[(b"X-Check", b"1")]))
        routes = routes_to(slow, quick, retry={"hedge": "50ms"})
        async with serve(routes) as gateway:
            url = f"http://127.0.0.1:{gateway.port}/"
            load = await hammer(url, total=20, concurrency=2)
            await wait_until(lambda: gateway.in_flight_count == 0)
            blamed = gateway.member(slow).breaker.failures_in_a_row
            never.set()

        assert load.bodies == {b"quick": 20}
        assert len(slow.requests) > 0
        assert blamed == 0


async def test_an_answer_that_comes_too_late_is_nobody_elses(serve: Serve) -> None:
    """The first goes out again over a fresh connection, and has a hedge: one, not two of them.

    The one that was forgotten would answer what the client asks next.
    """
    stale = 0

    async def answer(peer: Peer) -> None:
        nonlocal stale
        path = peer.request.target
        if path == b"/first" and not stale:
            stale += 1
            await asyncio.sleep(0.05)
            peer.close()
            return
        await asyncio.sleep({b"/warm": 0.0, b"/first": 0.45}.get(path, 0.3))
        await respond(body=path)(peer)

    async with AsyncExitStack() as stack:
        instances = [await stack.enter_async_context(ScriptedUpstream()) for _ in range(4)]
        for instance in instances:
            instance.on_request(answer)
        service = {"balance": "round_robin"}
        routes = routes_to(*instances, service=service, retry={"hedge": "150ms"})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await hammer(f"http://127.0.0.1:{gateway.port}/warm", total=8, concurrency=1)
            answers = []
            for path in ("/first", "/next"):
                await client.send(ask(path))
                answers.append(bytes((await client.read_response()).body))
            await wait_until(lambda: gateway.in_flight_count == 0)

    assert stale == 1
    assert answers == [b"/first", b"/next"]


@pytest.mark.soak
async def test_the_slowest_answers_are_cut_off_and_the_budget_holds(serve: Serve) -> None:
    """One answer in twenty takes long; with a hedge after p90 hardly any client waits for it."""
    count = 0

    async def sometimes_slow(peer: Peer) -> None:
        nonlocal count
        count += 1
        if count % 20 == 0:
            await asyncio.sleep(1.0)
        await respond()(peer)

    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        one.on_request(sometimes_slow)
        two.on_request(sometimes_slow)
        async with serve(routes_to(one, two, retry={"hedge": "p90"})) as gateway:
            url = f"http://127.0.0.1:{gateway.port}/"
            await hammer(url, total=200, concurrency=4)
            load = await hammer(url, total=600, concurrency=4)
            budget = gateway.gateway.engine.loads.services["web"].budget
            spent, answered = budget.spent, budget.answered

    assert load.statuses == {200: 600}
    slow = [shot for shot in load.shots if shot.latency_s > 0.9]
    assert len(slow) <= 6
    assert 0 < spent <= 0.2 * answered + 3 * 30
