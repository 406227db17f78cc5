"""`max_body`: a request body that is too long is refused before it costs anything."""

from __future__ import annotations

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_to
from tests.fakes.scenes import chunk
from tests.fakes.upstream import ScriptedUpstream


async def test_a_body_that_says_that_it_is_too_long_never_reaches_an_instance(serve: Serve) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up, max_body="1KiB")) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", body=bytes(1025)))
            answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (413, [b"body_too_large"])
    assert up.requests == []
    assert up.connections == []


async def test_a_body_of_just_the_limit_passes(serve: Serve) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up, max_body="1KiB")) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", body=bytes(1024)))
            answer = await client.read_response()

    assert answer.status == 200
    assert len(up.requests[0].body) == 1024


@pytest.mark.both_faces
async def test_a_body_without_a_length_is_counted_as_it_comes(serve: Serve) -> None:
    async with ScriptedUpstream() as up, serve(routes_to(up, max_body="1KiB")) as gateway:
        async with RawClient(gateway.port) as client:
            await client.send(ask("/", "POST", ("Transfer-Encoding", "chunked")))
            await client.send(chunk(bytes(1000)))
            await client.send(chunk(bytes(25)))
            answer = await client.read_response()

    assert (answer.status, answer.values(b"x-gateway-reason")) == (413, [b"body_too_large"])
    assert [request for request in up.requests if request.is_complete] == []
