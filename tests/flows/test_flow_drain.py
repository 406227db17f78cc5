"""What clients see of a gateway that is on its way out."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, fast_only, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.scenes import half_body, hold, play, reply, respond, stall
from tests.fakes.upstream import ScriptedUpstream, blackhole
from tests.fakes.waiting import PATIENCE_S


@fast_only
async def test_clients_are_asked_to_come_back_over_another_connection(serve: Serve) -> None:
    """So that nobody's request meets a connection that is being closed.

    An ASGI app cannot say that in every version of HTTP, so there the server alone does.
    """
    async with ScriptedUpstream() as web:
        async with (
            serve(routes_to(web)) as gateway,
            RawClient(gateway.port) as old,
            RawClient(gateway.port) as new,
        ):
            await old.send(ask())
            before = await old.read_response()
            gateway.gateway.drain()
            answers = []
            for client in (old, new):
                await client.send(ask())
                answers.append(await client.read_response())
                await client.expect_closed()

    assert before.values(b"connection") == []
    assert [one.status for one in answers] == [200, 200]
    assert [one.values(b"connection") for one in answers] == [[b"close"], [b"close"]]


@fast_only
async def test_pipelined_requests_behind_the_one_in_hand_are_left_to_be_asked_again(
    serve: Serve,
) -> None:
    """RFC 9112 §9.6: behind `close` nothing is answered, and no instance has heard of it."""
    may_answer = asyncio.Event()
    async with ScriptedUpstream() as web:
        web.on_request(play(hold(may_answer), respond()))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/first") + ask("/second", "POST", body=b"money"))
            await web.wait_until(lambda: bool(web.requests))
            gateway.stop()
            may_answer.set()
            answer = await client.read_response()
            await client.expect_closed()

        assert answer.status == 200
        assert answer.values(b"connection") == [b"close"]
        assert [request.target for request in web.requests] == [b"/first"]


@pytest.mark.both_faces
async def test_an_answer_in_the_middle_is_brought_to_its_end(serve: Serve) -> None:
    may_go_on = asyncio.Event()
    async with ScriptedUpstream() as web:
        web.on_request(play(half_body(promised_bytes=8), hold(may_go_on), reply(b"half")))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_head()
            gateway.stop()
            may_go_on.set()
            while await client.read_part():
                pass
            await client.expect_closed()

    assert answer.body == b"halfhalf"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["connecting", "answering"])
async def test_a_second_sigterm_does_not_wait_for_anybody(tmp_path: Path, stage: str) -> None:
    """An instance that takes no connection must not hold the gateway up for as long as that may."""
    async with ScriptedUpstream() as web, blackhole() as hole:
        web.on_request(play(half_body(), stall()))
        routes = routes_to(hole if stage == "connecting" else web, timeouts={"connect": "10m"})
        async with GatewayRun(routes, tmp_path) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            async with asyncio.timeout(PATIENCE_S):
                while await in_flight_count(gateway) == 0:
                    pass
            gateway.signal(signal.SIGTERM)
            await gateway.wait_for("draining")
            gateway.signal(signal.SIGTERM)
            code = await gateway.ended()

    assert code == 0
    assert "Traceback" not in gateway.said


async def in_flight_count(gateway: GatewayRun) -> int:
    health = (await gateway.ask_admin("/health")).json()
    return int(health["services"]["web"]["in_flight"])
