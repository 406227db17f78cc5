"""The load driver counts truly: an error that it hid would hide an error of the gateway."""

from __future__ import annotations

import pytest

from tests.fakes.load import hammer
from tests.fakes.peer import Action
from tests.fakes.scenes import app, chunked, close, half_body, play, respond, stall, until_closed
from tests.fakes.upstream import ScriptedUpstream


async def test_every_request_is_sent_once_over_few_connections() -> None:
    async with ScriptedUpstream() as up:
        up.on_request(app(lambda request: respond(200, request.target)))

        load = await hammer(
            up.url,
            total=50,
            concurrency=4,
            make_request=lambda number: b"GET /%d HTTP/1.1\r\nHost: up\r\n\r\n" % number,
        )

    assert load.statuses == {200: 50}
    assert [b"/%d" % number for number in range(50)] == [shot.body for shot in load.shots]
    assert (len(up.requests), len(up.connections)) == (50, 4)
    assert 0 < load.latency_s(0.5) <= load.latency_s(1.0)


async def test_the_path_and_query_of_the_url_are_asked_for() -> None:
    async with ScriptedUpstream() as up:
        await hammer(f"{up.url}/a?b=c", total=1)

    assert up.requests[0].target == b"/a?b=c"


async def test_bodies_are_read_whatever_their_framing() -> None:
    async with ScriptedUpstream() as up:
        up.on_request(
            chunked(b"bo", b"dy", trailers=[(b"T", b"v")]),
            until_closed(b"body"),
            respond(200, b"body"),
        )

        load = await hammer(up.url, total=3, concurrency=1)

    assert (load.errors, load.bodies) == ([], {b"body": 3})
    assert len(up.connections) == 2


@pytest.mark.parametrize("ending", [close(), play(half_body(), close())], ids=["before", "inside"])
async def test_a_connection_that_dies_is_an_error_of_its_request_alone(ending: Action) -> None:
    async with ScriptedUpstream() as up:
        up.on_request(respond(), ending, respond())

        load = await hammer(up.url, total=3, concurrency=1)

    assert [shot.status for shot in load.shots] == [200, None, 200]
    assert len(load.errors) == 1
    assert len(up.requests) == 3


async def test_a_refused_connection_is_an_error() -> None:
    async with ScriptedUpstream() as up:
        await up.refuse()

        load = await hammer(up.url, total=2, concurrency=2)

    assert (len(load.errors), load.statuses) == (2, {})


async def test_a_load_that_hangs_ends_in_time() -> None:
    async with ScriptedUpstream() as up:
        up.on_request(stall())

        with pytest.raises(TimeoutError):
            await hammer(up.url, total=1, timeout_s=0.05)
