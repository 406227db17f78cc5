"""SIGTERM: what is in hand is finished, nobody is dropped, and the process ends by itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.load import hammer
from tests.fakes.scenes import half_body, hold, play, reply, respond, stall
from tests.fakes.upstream import ScriptedUpstream, blackhole
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow


async def test_what_is_in_hand_is_finished(tmp_path: Path) -> None:
    may_answer = asyncio.Event()
    async with ScriptedUpstream() as web:
        web.on_request(play(hold(may_answer), respond(body=b"late")))
        async with GatewayProcess(tmp_path, routes_to(web)) as gateway:
            asking = asyncio.TaskGroup()
            async with asking:
                shots = asking.create_task(hammer(gateway.url, total=50, concurrency=50))
                await web.wait_until(lambda: len(web.requests) == 50)
                gateway.terminate()
                await wait_until(lambda: gateway.events("draining"))
                may_answer.set()
            exit_code = await gateway.wait_for_exit()
            lines = gateway.requests()

    assert shots.result().errors == []
    assert shots.result().bodies == {b"late": 50}
    assert exit_code == 0
    assert [line["status"] for line in lines] == [200] * 50


async def test_under_load_every_request_that_was_accepted_is_answered(tmp_path: Path) -> None:
    """Accepted: an instance heard of it. Whoever only connected may find the door closed."""
    async with ScriptedUpstream() as web:
        async with GatewayProcess(tmp_path, routes_to(web)) as gateway:

            async def terminate() -> None:
                await web.wait_until(lambda: len(web.requests) > 500)
                gateway.terminate()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(terminate())
                load = await hammer(gateway.url, total=3000, concurrency=50)
            exit_code = await gateway.wait_for_exit()
            lines = gateway.requests()

        assert exit_code == 0
        assert set(load.statuses) == {200}
        assert load.statuses[200] == len(web.requests)
        assert [line["status"] for line in lines] == [200] * len(lines)
        assert len(lines) == len(web.requests)


async def test_those_in_front_are_told_first_and_nobody_is_turned_away_meanwhile(
    tmp_path: Path,
) -> None:
    async with ScriptedUpstream() as web:
        async with (
            GatewayProcess(tmp_path, routes_to(web), drain_delay="600ms") as gateway,
            RawClient(gateway.port) as kept,
        ):
            await kept.send(ask())
            await kept.read_response()
            before, _ = await gateway.ask_admin("/readyz")
            gateway.terminate()
            told_at_s = time.monotonic()
            await wait_until(lambda: gateway.events("drain_waiting"))
            during, page = await gateway.ask_admin("/readyz")
            async with RawClient(gateway.port) as late:
                await late.send(ask())
                answer = await late.read_response()
            await kept.send(ask())
            kept_answer = await kept.read_response()
            exit_code = await gateway.wait_for_exit()
            took_s = time.monotonic() - told_at_s

    assert (before, during) == (200, 503)
    assert page["draining"] is True
    assert (answer.status, kept_answer.status) == (200, 200)
    # Told to come back elsewhere, instead of finding its connection closed later.
    assert answer.values(b"connection") == kept_answer.values(b"connection") == [b"close"]
    assert exit_code == 0
    assert 0.6 <= took_s < 2.0


async def test_an_idle_connection_does_not_hold_it_up(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        async with (
            GatewayProcess(tmp_path, routes_to(web)) as gateway,
            RawClient(gateway.port) as idle,
        ):
            await idle.send(ask())
            await idle.read_response()
            gateway.terminate()
            await idle.expect_closed()
            exit_code = await gateway.wait_for_exit(within_s=2)

    assert exit_code == 0


async def test_what_is_not_finished_in_time_is_told_so(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(stall())
        async with (
            GatewayProcess(tmp_path, routes_to(web), drain_timeout="1s") as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            await web.wait_until(lambda: bool(web.requests))
            gateway.terminate()
            answer = await client.read_response()
            exit_code = await gateway.wait_for_exit(within_s=2)
            (line,) = gateway.requests()

    assert answer.status == 503
    assert answer.values(b"x-gateway-reason") == [b"draining"]
    assert exit_code == 0
    assert line["failure"] == "draining"


@pytest.mark.parametrize("stage", ["thinking", "answering", "connecting"])
async def test_a_second_sigterm_ends_it_now(tmp_path: Path, stage: str) -> None:
    async with ScriptedUpstream() as web, blackhole() as hole:
        web.on_request(stall() if stage == "thinking" else play(half_body(), stall()))
        routes = routes_to(hole if stage == "connecting" else web, timeouts={"connect": "1m"})
        async with (
            GatewayProcess(tmp_path, routes) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            if stage == "answering":
                await client.read_head()
            elif stage == "thinking":
                await web.wait_until(lambda: bool(web.requests))
            await wait_until_in_flight(gateway)
            gateway.terminate()
            await wait_until(lambda: gateway.events("draining"))
            gateway.terminate()
            exit_code = await gateway.wait_for_exit(within_s=1)

    assert exit_code == 0


async def wait_until_in_flight(gateway: GatewayProcess) -> None:
    async with asyncio.timeout(5):
        while not (await gateway.ask_admin("/health"))[1]["services"]["web"]["in_flight"]:
            await asyncio.sleep(0.01)  # another process: there is nothing but to ask again


async def test_ctrl_c_does_not_wait_for_those_in_front(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        async with GatewayProcess(tmp_path, routes_to(web), drain_delay="30s") as gateway:
            gateway.interrupt()
            exit_code = await gateway.wait_for_exit(within_s=2)

    assert exit_code == 0


async def test_an_answer_in_the_middle_is_brought_to_its_end(tmp_path: Path) -> None:
    may_go_on = asyncio.Event()
    async with ScriptedUpstream() as web:
        scene = play(half_body(promised_bytes=8), hold(may_go_on), reply(b"half"))
        web.on_request(scene)
        async with (
            GatewayProcess(tmp_path, routes_to(web)) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            answer = await client.read_head()
            gateway.terminate()
            await wait_until(lambda: gateway.events("draining"))
            may_go_on.set()
            while await client.read_part():
                pass
            await client.expect_closed()
            exit_code = await gateway.wait_for_exit()

    assert answer.body == b"halfhalf"
    assert exit_code == 0
