"""`gateway run` on its way out: what is in hand is finished, nothing is left behind, in time."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.client import Answer, BrokenOffError, RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.peer import Peer
from tests.fakes.scenes import app, chunk, head, hold, play, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow

STOPS = [signal.SIGTERM, signal.SIGINT]


async def endless(peer: Peer) -> None:
    """Stream one event after another until the other side leaves."""
    await peer.send(head(200, [(b"Transfer-Encoding", b"chunked")]))
    while True:
        await peer.send(chunk(b"data: tick\n\n"))
        await asyncio.sleep(0.02)  # the pace of the events


def slow_until(released: asyncio.Event, upstream: ScriptedUpstream) -> None:
    """Let /slow wait for the event, and /endless never end."""
    upstream.on_request(
        app(
            lambda request: {
                b"/slow": play(hold(released), respond(body=b"late")),
                b"/endless": endless,
            }.get(request.target, respond())
        )
    )


class Lane:
    """A client that asks on and on over one connection until that is closed between answers.

    `is_dropped` says that it was closed without being told in the answer before.
    """

    def __init__(self) -> None:
        self.is_dropped = False
        self.answers: list[Answer] = []
        self.broken_off: list[BrokenOffError] = []

    async def run(self, port: int) -> None:
        async with RawClient(port) as client:
            while True:
                try:
                    await client.send(ask(f"/{len(self.answers)}"))
                    self.answers.append(await client.read_response())
                except BrokenOffError as error:
                    self.is_dropped = True
                    if error.answer is not None:
                        self.broken_off.append(error)
                    return
                except ConnectionError:
                    self.is_dropped = True  # before the request came: nobody has taken that one
                    return
                if self.answers[-1].values(b"connection") == [b"close"]:
                    return


@pytest.mark.parametrize("number", STOPS, ids=lambda one: one.name)
async def test_a_signal_under_load_loses_nothing_that_was_accepted(
    tmp_path: Path, number: signal.Signals
) -> None:
    """What an instance was asked is what clients were answered, each one whole.

    After SIGTERM no client meets a closed connection that it was not told of; Ctrl-C is quicker.
    """
    released = asyncio.Event()
    lanes = [Lane() for _ in range(16)]
    async with ScriptedUpstream() as web, AsyncExitStack() as stack:
        slow_until(released, web)
        gateway = await stack.enter_async_context(GatewayRun(routes_to(web), tmp_path))
        waiting = [await stack.enter_async_context(RawClient(gateway.port)) for _ in range(20)]
        for client in waiting:
            await client.send(ask("/slow"))
        async with asyncio.TaskGroup() as tasks:
            for lane in lanes:
                tasks.create_task(lane.run(gateway.port))
            await wait_until(lambda: len(web.requests) > 500)
            gateway.signal(number)
        await gateway.wait_for("draining")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting[0].read_some(), 0.5)
        released.set()
        late = [await client.read_response() for client in waiting]
        code = await gateway.ended()

        answers = [answer for lane in lanes for answer in lane.answers]
        assert [error for lane in lanes for error in lane.broken_off] == []
        if number is signal.SIGTERM:
            assert [lane for lane in lanes if lane.is_dropped] == []
        assert Counter(answer.status for answer in answers).keys() == {200}
        assert {(answer.status, answer.body) for answer in late} == {(200, b"late")}
        assert len(web.requests) == len(answers) + len(late)
        assert len(gateway.requests) == len(web.requests)
        assert code == 0
        assert gateway.leftovers() == []


async def test_with_a_delay_it_is_not_ready_while_it_still_serves(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_delay="1s") as gateway,
        RawClient(gateway.port) as old,
    ):
        gateway.signal(signal.SIGTERM)
        await gateway.wait_for_readyz(503)
        readiness = (await gateway.ask_admin("/readyz")).json()
        alive = (await gateway.ask_admin("/livez")).status_code
        await old.send(ask())
        on_the_old = await old.read_response()
        async with RawClient(gateway.port) as new:
            await new.send(ask())
            on_a_new_one = await new.read_response()
        is_accepting = gateway.logged("draining") == []
        code = await gateway.ended()

    assert is_accepting, "the machine was too slow for this test to say anything"
    assert (readiness["ready"], readiness["draining"], alive) == (False, True, 200)
    assert (on_the_old.status, on_a_new_one.status) == (200, 200)
    assert code == 0
    assert gateway.leftovers() == []


async def test_an_endless_answer_is_cut_when_its_time_is_over(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_timeout="400ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        slow_until(asyncio.Event(), web)
        await client.send(ask("/endless"))
        await web.wait_until(lambda: len(web.requests) == 1)

        gateway.signal(signal.SIGTERM)
        with pytest.raises(BrokenOffError) as broken_off:
            await client.read_response()
        code = await gateway.ended()

        assert broken_off.value.answer is not None
        assert b"tick" in broken_off.value.answer.body
        assert code == 0
        assert [line["failure"] for line in gateway.requests] == ["draining"]
        assert gateway.leftovers() == []


async def test_a_request_without_an_answer_is_refused_when_its_time_is_over(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_timeout="300ms") as gateway,
        RawClient(gateway.port) as client,
    ):
        slow_until(asyncio.Event(), web)
        await client.send(ask("/slow"))
        await web.wait_until(lambda: len(web.requests) == 1)

        gateway.signal(signal.SIGTERM)
        answer = await client.read_response()
        code = await gateway.ended()

        assert (answer.status, answer.values(b"x-gateway-reason")) == (503, [b"draining"])
        assert code == 0
        assert gateway.leftovers() == []


@pytest.mark.parametrize("variable", ["drain_delay", "drain_timeout"])
@pytest.mark.parametrize("second", STOPS, ids=lambda one: one.name)
async def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, second: signal.Signals, variable: str
) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, **{variable: "10m"}) as gateway,
        RawClient(gateway.port) as client,
        RawClient(gateway.port),  # somebody who asks for nothing
    ):
        slow_until(asyncio.Event(), web)
        await client.send(ask("/slow"))
        await web.wait_until(lambda: len(web.requests) == 1)

        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("drain_waiting" if variable == "drain_delay" else "draining")
        gateway.signal(second)
        answer = await client.read_response()
        code = await gateway.ended()

        assert (answer.status, answer.values(b"x-gateway-reason")) == (503, [b"draining"])
        assert code == 0
        assert len(gateway.logged("drain_cut_short")) == 1
        assert gateway.leftovers() == []


async def test_ctrl_c_does_not_wait_for_the_delay(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_delay="10m") as gateway,
    ):
        gateway.signal(signal.SIGINT)
        code = await gateway.ended()

    assert code == 0
    assert gateway.logged("drain_waiting") == []
    assert "Traceback" not in gateway.said
    assert gateway.leftovers() == []


async def test_idle_clients_and_watchers_of_health_do_not_keep_it_from_ending(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_idle="100ms", drain_timeout="300ms") as gateway,
        RawClient(gateway.port) as idle,
        RawClient(gateway.port) as halfway,
        RawClient(gateway.admin_port) as watcher,
    ):
        for client, request in ((idle, ask()), (watcher, ask("/health"))):
            await client.send(request)
            await client.read_response()
        await halfway.send(b"GET / HTTP/1.1\r\nHost: sh")
        await idle.send(ask())  # by its answer, what was sent before has been read too
        await idle.read_response()

        gateway.signal(signal.SIGTERM)
        for client in (idle, watcher):
            await client.expect_closed()
        late = await halfway.read_response()
        code = await gateway.ended()

        assert code == 0
        assert (late.status, late.values(b"x-gateway-reason")) == (503, [b"draining"])
        assert gateway.leftovers() == []


@pytest.mark.parametrize("taken", ["bind", "admin"])
async def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gateway = GatewayRun(routes_to(1), tmp_path, **{taken: f"127.0.0.1:{port}"})
        gateway.launch()
        code = await gateway.ended()

    assert code == 1
    assert gateway.said.splitlines()[-1] == (
        f"gateway: cannot listen on 127.0.0.1:{port}: Address already in use; "
        f"set GATEWAY_{taken.upper()} to another address"
    )
    assert "Traceback" not in gateway.said


async def test_each_request_is_one_line_of_json_on_stdout_and_events_go_to_stderr(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(
            routes_to(web, match={"path_prefix": "/api"}),
            tmp_path,
            drain_timeout="1s",
            max_connections="20",
        ) as gateway,
        RawClient(gateway.port) as client,
    ):
        for target in ("/api/users?token=secret", "/nowhere"):
            await client.send(ask(target))
            await client.read_response()
        async with RawClient(gateway.port) as wrong:
            await wrong.send(b"nonsense\r\n\r\n")
            await wrong.read_response()
        await web.refuse()
        await web.drop()
        await client.send(ask("/api/late"))
        await client.read_response()
        gateway.signal(signal.SIGTERM)
        code = await gateway.ended()

        lines = (tmp_path / "stdout").read_text(encoding="utf-8").splitlines()
        requests = [json.loads(line) for line in lines]
        assert code == 0
        assert [(one["event"], one["status"], one.get("failure")) for one in requests] == [
            ("request", 200, None),
            ("request", 404, "no_route"),
            ("request", 400, "bad_request"),
            ("request", 502, "connect_failed"),
        ]
        assert [one["path"] for one in requests][:2] == ["/api/users", "/nowhere"]
        assert "secret" not in "".join(lines) + gateway.said
        assert [json.loads(line)["event"] for line in gateway.said.splitlines()] == [
            "service_changed",
            "open_files",
            "listening",
            "listening",
            "draining",
        ]
        assert all({"timestamp", "level"} <= event.keys() for event in gateway.events)


async def test_a_request_that_is_half_sent_may_be_finished(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, drain_timeout="10s") as gateway,
        RawClient(gateway.port) as client,
    ):
        request = ask("/", "POST", body=b"x" * 100)
        await client.send(request[:-50])
        await web.wait_until(lambda: len(web.requests) == 1)

        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("draining")
        await client.send(request[-50:])
        answer = await client.read_response()
        code = await gateway.ended()

        assert answer.status == 200
        assert answer.values(b"connection") == [b"close"]
        assert bytes(web.requests[0].body) == b"x" * 100
        assert code == 0
