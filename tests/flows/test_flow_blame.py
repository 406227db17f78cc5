"""What one client asks for does not shut others out; an instance that serves nobody is shut out."""

from __future__ import annotations

import asyncio

from tests.fakes.client import RawClient
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_file, routes_to
from tests.fakes.peer import Action, ReceivedRequest
from tests.fakes.scenes import app, hold, respond
from tests.fakes.upstream import ScriptedUpstream

OTHERS, ASKER = "127.0.0.1", "127.0.0.2"
SOON_LATE = {"response": "200ms"}
ONCE = {"attempts": 1}
BREAKER = {"window": "1h"}  # what was served is not too long ago, however busy the machine is
BUSY = [(b"Retry-After", b"10")]


def sick_for_some(never: asyncio.Event) -> Action:
    """Answer nothing to a report, 503 to what is broken, and all else well."""

    def choose(request: ReceivedRequest) -> Action:
        if request.target.startswith(b"/report"):
            return hold(never)
        if request.target.startswith(b"/broken"):
            return respond(503, headers=BUSY)
        return respond()

    return app(choose)


def routes(*upstreams: ScriptedUpstream) -> str:
    servers = [f"http://127.0.0.1:{one.port}" for one in upstreams]
    return routes_file(
        {"web": {"servers": servers, "circuit_breaker": BREAKER}},
        {
            "match": {"path_prefix": "/report"},
            "service": "web",
            "timeouts": SOON_LATE,
            "retry": ONCE,
        },
        {"match": {"path_prefix": "/"}, "service": "web", "retry": ONCE},
    )


async def answer(gateway: RunningGateway, target: str, source: str) -> tuple[int, bytes]:
    async with RawClient(gateway.port, source=source) as client:
        await client.send(ask(target))
        response = await client.read_response()
    return response.status, b"".join(response.values(b"x-gateway-reason"))


async def answers(gateway: RunningGateway, target: str, source: str, count: int) -> list[int]:
    return [(await answer(gateway, target, source))[0] for _ in range(count)]


async def at_once(gateway: RunningGateway, target: str, source: str, count: int) -> list[int]:
    asked = [answer(gateway, target, source) for _ in range(count)]
    return [status for status, _ in await asyncio.gather(*asked)]


async def test_what_one_client_asks_for_shuts_the_only_instance_out_for_nobody(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(sick_for_some(asyncio.Event()))
        async with serve(routes(web)) as gateway:
            others, asker = await answers(gateway, "/", OTHERS, 3), []
            for _ in range(2):
                asker += await at_once(gateway, "/report", ASKER, 8)
                others += await answers(gateway, "/", OTHERS, 3)
                asker += await answers(gateway, "/broken", ASKER, 30)
                others += await answers(gateway, "/", OTHERS, 3)
            opened = gateway.logged("breaker_opened")

    assert asker == ([504] * 8 + [503] * 30) * 2
    assert others == [200] * 15
    assert opened == []


async def test_what_one_client_asks_for_shuts_neither_of_two_out_nor_lets_them_rest(
    serve: Serve,
) -> None:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        for web in (one, two):
            web.on_request(sick_for_some(asyncio.Event()))
        async with serve(routes(one, two)) as gateway:
            await until_both_have_served(gateway, one, two)
            await answers(gateway, "/broken", ASKER, 60)
            await at_once(gateway, "/report", ASKER, 30)
            others = await answers(gateway, "/", OTHERS, 20)
            opened = gateway.logged("breaker_opened")

    assert others == [200] * 20
    assert opened == []


async def until_both_have_served(gateway: RunningGateway, *upstreams: ScriptedUpstream) -> None:
    while not all(one.requests for one in upstreams):
        await answers(gateway, "/", OTHERS, 1)


async def test_a_frozen_instance_behind_one_address_is_shut_out(serve: Serve) -> None:
    """As behind a load balancer that is not trusted: there is nobody else who could be well."""
    async with ScriptedUpstream() as web:
        async with serve(routes_to(web, timeouts=SOON_LATE, retry=ONCE)) as gateway:
            web.on_request(hold(asyncio.Event()))
            late = []
            while not gateway.logged("breaker_opened"):
                late.append(await answer(gateway, "/", OTHERS))
            refused = await answer(gateway, "/", OTHERS)

    assert late == [(504, b"head_timeout")] * 5
    assert refused == (503, b"breakers_open")


async def test_a_frozen_instance_is_shut_out_though_it_has_served_others_before(
    serve: Serve,
) -> None:
    """Each is doubted because the other was served, and counts because the other fails too."""
    async with ScriptedUpstream() as web:
        service = {"circuit_breaker": BREAKER}
        web.on_request(respond())
        async with serve(
            routes_to(web, service=service, timeouts=SOON_LATE, retry=ONCE)
        ) as gateway:
            for source in (OTHERS, ASKER):
                await answer(gateway, "/", source)
            web.on_request(hold(asyncio.Event()))
            for source in [OTHERS, ASKER] * 3:
                await answer(gateway, "/", source)
            opened = [one["why"] for one in gateway.logged("breaker_opened")]

    assert opened == ["head_timeout"]
