"""Nobody waits for ever: each part of an exchange has its limit, and its name when it is over.

That a limit is over after its time, and not sooner or later, is told with clocks that stand still:
tests/proxy/test_exchange_timeouts.py, test_phase.py, test_deadlines.py.
"""

from __future__ import annotations

import json

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import Serve, ask, fast_only, routes_to
from tests.fakes.scenes import drip, half_body, play, respond, stall
from tests.fakes.upstream import ScriptedUpstream, blackhole

LIMIT = "200ms"
PATIENT = {"circuit_breaker": {"consecutive_failures": 1000}}

pytestmark = pytest.mark.slow


async def test_an_instance_that_does_not_take_the_connection_is_504(serve: Serve) -> None:
    async with blackhole() as port:
        routes = routes_to(port, timeouts={"connect": LIMIT})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    assert answer.status == 504
    assert json.loads(answer.body)["reason"] == "connect_timeout"


async def test_the_next_instance_gets_it_after_a_connect_timeout(serve: Serve) -> None:
    """A POST too: nothing of it was sent."""
    async with blackhole() as port, ScriptedUpstream() as web:
        routes = routes_to(port, web, timeouts={"connect": LIMIT}, service=PATIENT)
        statuses: list[int] = []
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            while not any(
                one.breaker._failed for one in gateway.gateway.engine.fleets["web"].members.values()
            ):
                assert len(statuses) < 200, "chance never chose the black hole"
                await client.send(ask("/", "POST", body=b"once"))
                statuses.append((await client.read_response()).status)

        assert set(statuses) == {200}
        assert len(web.requests) == len(statuses)


@pytest.mark.parametrize(("method", "asked_count"), [("GET", 2), ("POST", 1)])
async def test_an_instance_that_does_not_answer_is_504(
    serve: Serve, method: str, asked_count: int
) -> None:
    """The next instance gets a GET as well; here that one does not answer either."""
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        web.on_request(stall())
        other.on_request(stall())
        routes = routes_to(web, other, timeouts={"response": LIMIT})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", method, body=b"" if method == "POST" else None))
            answer = await client.read_response()

        assert answer.status == 504
        assert json.loads(answer.body)["reason"] == "head_timeout"
        assert len(web.requests) + len(other.requests) == asked_count


@fast_only
async def test_an_instance_that_leaves_a_client_waiting_for_its_100_is_504(serve: Serve) -> None:
    """Under ASGI the server says 100 itself."""
    async with ScriptedUpstream() as web:
        web.on_head(stall())
        routes = routes_to(web, timeouts={"response": LIMIT})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", ("Expect", "100-continue"), ("Content-Length", "4")))
            answer = await client.read_response()
            await client.expect_closed()
            blamed = gateway.member(web).breaker._failed

    assert (answer.status, answer.values(b"x-gateway-reason")) == (504, [b"continue_timeout"])
    assert blamed == 0


async def test_an_answer_that_comes_to_a_halt_is_cut(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(play(half_body(), stall()))
        routes = routes_to(web, timeouts={"idle": LIMIT})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            with pytest.raises(BrokenOffError) as broken:
                await client.read_response()
            blamed = gateway.member(web).breaker._failed

        assert broken.value.answer is not None
        assert broken.value.answer.body == b"half"
        assert blamed == 1


async def test_a_request_as_a_whole_may_have_a_limit(serve: Serve) -> None:
    """It is over all attempts, and ends them: nobody else is asked."""
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        web.on_request(stall())
        other.on_request(stall())
        routes = routes_to(web, other, timeouts={"request": LIMIT})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

        assert answer.status == 504
        assert json.loads(answer.body)["reason"] == "request_deadline"
        assert len(web.requests) + len(other.requests) == 1


@pytest.mark.both_faces
async def test_an_upload_that_comes_to_a_halt_is_the_clients_fault(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        async with (
            serve(routes_to(web), client_body_timeout_s=LIMIT) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask("/", "POST", ("Content-Length", "100")) + b"only this")
            answer = await client.read_response()
            blamed = gateway.member(web).breaker._failed
            await web.wait_until(lambda: not web.connections[0].is_open())

        assert answer.status == 408
        assert json.loads(answer.body)["reason"] == "request_timeout"
        assert blamed == 0


async def test_a_slow_answer_that_keeps_coming_is_not_cut(serve: Serve) -> None:
    """The limit is between two bytes, not on the whole."""
    async with ScriptedUpstream() as web:
        web.on_request(play(half_body(promised_bytes=10), drip(b"xxxxxx", pause_s=0.1)))
        routes = routes_to(web, timeouts={"idle": "400ms", "response": "400ms"})
        async with serve(routes) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            answer = await client.read_response()

    assert answer.body == b"halfxxxxxx"


@fast_only
async def test_a_head_that_comes_drop_by_drop_is_408(serve: Serve) -> None:
    """However often a further byte comes. Under ASGI that is the server's business."""
    async with ScriptedUpstream() as web:
        async with (
            serve(routes_to(web), client_head_timeout_s=LIMIT) as gateway,
            RawClient(gateway.port) as client,
        ):
            for byte in b"GET / HTTP":
                await client.send(bytes((byte,)))
            answer = await client.read_response()
            await client.expect_closed()

        assert answer.status == 408
        assert json.loads(answer.body)["reason"] == "request_timeout"
        assert web.connections == []


@fast_only
async def test_an_idle_client_is_sent_away_without_a_word(serve: Serve) -> None:
    """Under ASGI that is the server's business too."""
    async with ScriptedUpstream() as web:
        web.on_request(respond())
        async with (
            serve(routes_to(web), keepalive_timeout_s=LIMIT) as gateway,
            RawClient(gateway.port) as client,
        ):
            await client.send(ask())
            await client.read_response()
            await client.expect_closed()
