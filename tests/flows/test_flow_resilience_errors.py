"""Instances that fail by chance: what clients see of it, and what it costs the instances."""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_to
from tests.fakes.load import hammer
from tests.fakes.peer import Action
from tests.fakes.scenes import app, close, respond
from tests.fakes.upstream import ScriptedUpstream

PATIENT = {"circuit_breaker": {"consecutive_failures": 1000, "min_requests": 1_000_000}}


async def fickle_three(stack: AsyncExitStack, *, fails: float) -> list[ScriptedUpstream]:
    """Run three instances that answer 503 so often, by chance."""
    upstreams = [await stack.enter_async_context(ScriptedUpstream()) for _ in range(3)]
    for number, upstream in enumerate(upstreams):
        upstream.on_request(fickle(Random(number), fails))
    return upstreams


def fickle(random: Random, fails: float) -> Action:
    """Answer 503 so often, by chance."""
    return app(lambda _: respond(503, b"busy") if random.random() < fails else respond())


def url(gateway: RunningGateway) -> str:
    return f"http://127.0.0.1:{gateway.port}/"


@pytest.mark.slow
async def test_of_three_that_answer_503_three_times_in_ten_clients_see_hardly_any(
    serve: Serve,
) -> None:
    """A route that is set up for it: rounds over all instances, and a budget of a half."""
    retry = {"attempts": 6, "repeat": True, "budget": 0.5}
    async with AsyncExitStack() as stack:
        upstreams = await fickle_three(stack, fails=0.3)
        async with serve(routes_to(*upstreams, service={"retry": retry})) as gateway:
            load = await hammer(url(gateway), total=3000)
        asked = sum(len(upstream.requests) for upstream in upstreams)

    assert load.errors == []
    assert load.statuses[503] < 30  # one in a hundred
    assert load.statuses[200] + load.statuses[503] == 3000
    assert asked <= 3000 * 1.5 + 3 * (10 + 20)


@pytest.mark.slow
async def test_when_everything_fails_load_is_not_multiplied(serve: Serve) -> None:
    """All instances answer 503, and no Breaker helps: what holds is the budget."""
    async with AsyncExitStack() as stack:
        upstreams = await fickle_three(stack, fails=1.0)
        retry = {"budget": 0.2, "budget_min": 1}
        routes = routes_to(*upstreams, service={**PATIENT, "retry": retry})
        async with serve(routes) as gateway:
            load = await hammer(url(gateway), total=2000)
            spent = gateway.gateway.engine.loads.services["web"].budget.spent
        asked = sum(len(upstream.requests) for upstream in upstreams)

    assert load.statuses == {503: 2000}
    assert asked == 2000 + spent
    assert asked <= 2000 * 1.2 + 1 * (10 + 20)


async def test_an_instance_that_asks_to_be_left_alone_is_left_alone(serve: Serve) -> None:
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        web.on_request(respond(503, b"later", [(b"Retry-After", b"20")]))
        async with serve(routes_to(web, other)) as gateway:
            load = await hammer(url(gateway), total=100, concurrency=1)
            (event,) = gateway.logged("breaker_opened")

        assert load.statuses == {200: 100}
        assert len(web.requests) == 1
        assert (event["why"], event["open_for_s"]) == ("retry_after", 10.0)


async def test_the_only_instance_may_say_what_it_likes(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(respond(503, b"later", [(b"Retry-After", b"20")]), respond())
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            answers = []
            for _ in range(2):
                await client.send(ask())
                answers.append(await client.read_response())

        assert [answer.status for answer in answers] == [503, 200]
        assert answers[0].values(b"retry-after") == [b"20"]


async def test_a_post_is_sent_twice_with_its_key_or_not_at_all(serve: Serve) -> None:
    """Connection may not take the key away, by which an instance knows the second one."""
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        web.on_request(close())
        other.on_request(respond())
        routes = routes_to(web, other, service=PATIENT, retry={"idempotency_key": True})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            while not web.requests:
                fields = (("Idempotency-Key", "k"), ("Connection", "Idempotency-Key"))
                await client.send(ask("/", "POST", *fields, body=b"once"))
                assert (await client.read_response()).status == 200

        keys = [one.values(b"idempotency-key") for one in (web.requests[0], other.requests[-1])]
        assert keys == [[b"k"], [b"k"]]
        assert bytes(other.requests[-1].body) == bytes(web.requests[0].body) == b"once"
