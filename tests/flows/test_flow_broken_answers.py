"""An instance breaks off inside its answer: the client can tell, and the Breaker hears of it."""

from __future__ import annotations

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.gateway import Face, Serve, ask, routes_to
from tests.fakes.peer import Action
from tests.fakes.scenes import chunk, close, half_body, head, play, reply, reset, until_closed
from tests.fakes.upstream import ScriptedUpstream

HALF_CHUNKED = reply(head(200, [(b"Transfer-Encoding", b"chunked")]) + chunk(b"half"))
NO_CHUNK = reply(head(200, [(b"Transfer-Encoding", b"chunked")]) + b"4\r\nhalfXX")


@pytest.mark.both_faces
@pytest.mark.parametrize(
    "scene",
    [
        play(half_body(), close()),
        play(half_body(), reset()),
        play(HALF_CHUNKED, close()),
        play(HALF_CHUNKED, reset()),
        play(NO_CHUNK, close()),
        play(reply(head(200) + b"half"), reset()),
    ],
    ids=[
        "length-closed",
        "length-reset",
        "chunked-closed",
        "chunked-reset",
        "no-chunk",
        "until-closed-reset",
    ],
)
async def test_the_client_can_tell_that_the_answer_is_not_whole(
    serve: Serve, scene: Action
) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(scene)
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(ask())
            with pytest.raises(BrokenOffError):
                await client.read_response()
            blamed = gateway.member(web).breaker._failed

        assert blamed == 1
        assert len(web.requests) == 1


@pytest.mark.both_faces
async def test_to_an_old_client_a_reset_tells_it(serve: Serve, face: Face) -> None:
    """An answer to HTTP/1.0 without a length ends with the connection, so a mere end is no sign.

    Under ASGI the server chunks it even then, and ends early.
    """
    async with ScriptedUpstream() as web:
        web.on_request(play(HALF_CHUNKED, reset()))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            await client.send(b"GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
            if face == "fast":
                await client.expect_reset()
            else:
                assert not (await client.read_until_closed()).endswith(b"0\r\n\r\n")


async def test_an_answer_that_ends_with_the_connection_is_whole(serve: Serve) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(until_closed(b"all of it"))
        async with serve(routes_to(web)) as gateway, RawClient(gateway.port) as client:
            bodies = []
            for _ in range(2):
                await client.send(ask())
                bodies.append((await client.read_response()).body)
            blamed = gateway.member(web).breaker._failed

        assert bodies == [b"all of it"] * 2
        assert len(web.connections) == 2
        assert blamed == 0


async def test_enough_broken_answers_open_the_breaker(serve: Serve) -> None:
    breaker = {"circuit_breaker": {"consecutive_failures": 3}}
    async with ScriptedUpstream() as web, ScriptedUpstream() as other:
        for one in (web, other):
            one.on_request(play(half_body(), reset()))
        async with serve(routes_to(web, other, service=breaker)) as gateway:
            for number in range(12):  # of as many clients: one alone could not open it
                source = f"127.0.0.{number + 2}"
                async with RawClient(gateway.port, source=source) as client:
                    await client.send(ask())
                    with pytest.raises(BrokenOffError):
                        await client.read_response()

        (event,) = gateway.logged("breaker_opened")
        assert event["why"] == "upstream_broke_off"
