"""The scripted upstream does exactly what its script says, or the flow tests prove nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.peer import Action, Ended, Peer
from tests.fakes.scenes import (
    app,
    chunked,
    close,
    drip,
    echo,
    finish,
    half_body,
    hold,
    interim,
    play,
    reply,
    reset,
    respond,
    stall,
    until_closed,
)
from tests.fakes.upstream import ScriptedUpstream, blackhole
from tests.fakes.waiting import PATIENCE_S

GET = b"GET /a%2Fb HTTP/1.1\r\nHost: up\r\nX-Tag: 1\r\nx-tag: 2\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: up\r\nContent-Length: 4\r\n\r\nbody"
LARGE = 4 * 1024 * 1024


async def test_a_request_is_recorded_as_it_came_and_answered() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))

        await client.send(GET)
        answer = await client.read_response()

    assert (answer.status, answer.body) == (200, b"ok")
    assert up.requests[0].target == b"/a%2Fb"
    assert up.requests[0].headers == [(b"Host", b"up"), (b"X-Tag", b"1"), (b"x-tag", b"2")]
    assert up.requests[0].values(b"X-TAG") == [b"1", b"2"]
    assert bytes(up.connections[0].received) == GET


async def test_the_nth_arrival_plays_the_nth_scene_and_the_last_one_repeats() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(respond(503), respond(200))

        await client.send(GET + GET + GET)
        statuses = [(await client.read_response()).status for _ in range(3)]

    assert statuses == [503, 200, 200]
    assert len(up.connections) == 1


async def test_a_body_is_recorded_whatever_its_framing() -> None:
    chunks = b"POST / HTTP/1.1\r\nHost: up\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks += b"2\r\nbo\r\n2\r\ndy\r\n0\r\nX-Sum: 7\r\n\r\n"
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        await client.send(POST + chunks)
        await client.read_response()
        await client.read_response()

    assert [bytes(request.body) for request in up.requests] == [b"body", b"body"]
    assert up.requests[1].trailers == [(b"X-Sum", b"7")]


async def test_a_body_that_breaks_off_is_not_complete_and_is_not_answered() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        await client.send(POST[:-2])
        client.half_close()
        await client.expect_closed()

    assert (up.requests[0].is_complete, bytes(up.requests[0].body)) == (False, b"bo")
    assert Ended.CLOSED_BY_PEER is up.connections[0].ended


async def test_broken_http_fails_the_test_that_let_it_through() -> None:
    async def send_broken_http() -> None:
        async with ScriptedUpstream() as up, RawClient(up.port) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost : up\r\n\r\n")
            await client.read_until_closed()

    with pytest.raises(AssertionError, match="broken HTTP"):
        await send_broken_http()


@pytest.fixture
async def shared() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as up:
        yield up


async def test_it_can_be_a_fixture(shared: ScriptedUpstream) -> None:
    """Fixtures are entered and left in tasks of their own."""
    async with RawClient(shared.port) as client:
        await client.send(GET)

        assert (await client.read_response()).status == 200


async def test_a_failing_script_fails_the_test() -> None:
    async def fail(peer: Peer) -> None:
        raise ValueError(peer.number)

    async def play_a_failing_script() -> None:
        async with ScriptedUpstream() as up, RawClient(up.port) as client:
            up.on_request(fail)
            await client.send(GET)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await play_a_failing_script()

    assert caught.group_contains(ValueError)


async def test_an_exception_of_the_test_itself_comes_through_as_it_is() -> None:
    async def fail() -> None:
        async with ScriptedUpstream():
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()


@pytest.mark.parametrize(
    ("scene", "raw"),
    [
        pytest.param(
            respond(404, b"no", [(b"X", b"y")]),
            b"HTTP/1.1 404 Scripted\r\nX: y\r\nContent-Length: 2\r\n\r\nno",
            id="respond",
        ),
        pytest.param(
            chunked(b"one", b"two", trailers=[(b"T", b"v")]),
            b"HTTP/1.1 200 Scripted\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n0\r\nT: v\r\n\r\n",
            id="chunked",
        ),
        pytest.param(until_closed(b"all"), b"HTTP/1.1 200 Scripted\r\n\r\nall", id="until_closed"),
        pytest.param(drip(b"drop by drop", piece_bytes=5), b"drop by drop", id="drip"),
        pytest.param(
            play(half_body(), close()),
            b"HTTP/1.1 200 Scripted\r\nContent-Length: 1000\r\n\r\nhalf",
            id="half_body",
        ),
        pytest.param(close(), b"", id="close"),
        pytest.param(play(reply(b"last words"), finish()), b"last words", id="finish"),
    ],
)
async def test_an_action_sends_exactly_its_bytes(scene: Action, raw: bytes) -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(scene)
        await client.send(GET)
        client.half_close()

        got = await client.read_until_closed()

    assert raw == got


async def test_a_head_request_is_answered_without_a_body() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: up\r\n\r\n" + GET)
        first = await client.read_response(b"HEAD")
        second = await client.read_response()

    assert (first.body, first.values(b"content-length")) == (b"", [b"2"])
    assert second.body == b"ok"


async def test_a_client_that_asks_to_close_is_closed() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n")
        await client.read_response()
        await client.expect_closed()


async def test_interim_answers_come_before_the_final_one() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_head(interim(100))
        up.on_request(play(interim(103, [(b"Link", b"</a>")]), respond()))
        await client.send(POST[:-4])
        await up.wait_until(lambda: bool(up.requests))
        await client.send(POST[-4:])

        answer = await client.read_response()

    assert [early.status for early in answer.interim] == [100, 103]
    assert answer.status == 200


async def test_an_early_answer_comes_before_the_body_was_read() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_head(play(respond(413), stall()))
        await client.send(POST[:-4])

        answer = await client.read_response(b"POST")

    assert answer.status == 413
    assert not up.requests[0].is_complete


async def test_an_application_chooses_by_request() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(app(lambda request: respond(201, bytes(request.body))))
        await client.send(POST)

        answer = await client.read_response()

    assert (answer.status, answer.body) == (201, b"body")


async def test_a_reset_inside_the_body_reaches_the_client_as_a_reset() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(play(half_body(), reset()))
        await client.send(GET)
        await client.expect_reset()


async def test_a_reset_at_the_connection_needs_no_request() -> None:
    async with ScriptedUpstream() as up:
        up.on_connect(reset(), play())
        async with RawClient(up.port) as first:
            await first.expect_reset()
        async with RawClient(up.port) as second:
            await second.send(GET)
            answer = await second.read_response()

    assert answer.status == 200


async def test_a_stalled_upstream_notices_that_the_client_left() -> None:
    async with ScriptedUpstream() as up:
        up.on_request(stall())
        async with RawClient(up.port, timeout_s=0.05) as client:
            await client.send(GET)
            with pytest.raises(TimeoutError):
                await client.read_head()
        await up.wait_until(lambda: up.connections[0].ended is Ended.CLOSED_BY_PEER)


async def test_a_client_that_resets_is_told_from_one_that_closes() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(stall())
        await client.send(GET)
        await up.wait_until(lambda: bool(up.requests))
        client.reset()
        await up.wait_until(lambda: up.connections[0].ended is Ended.RESET_BY_PEER)


async def test_an_upstream_that_does_not_read_stops_the_sender_until_it_reads_again() -> None:
    go_on = asyncio.Event()
    head = b"POST / HTTP/1.1\r\nHost: up\r\nContent-Length: %d\r\n\r\n" % LARGE
    async with (
        ScriptedUpstream(receive_buffer_bytes=4096) as up,
        RawClient(up.port, timeout_s=5) as client,
    ):
        up.on_head(hold(go_on))
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(client.send(head + bytes(LARGE)))
            await up.wait_until(lambda: bool(up.requests))
            done_while_held, _ = await asyncio.wait([sending], timeout=0.05)
            go_on.set()
        answer = await client.read_response(b"POST")

    assert set() == done_while_held
    assert (answer.status, len(up.requests[0].body)) == (200, LARGE)


async def test_a_client_that_does_not_read_stops_the_upstream() -> None:
    written = asyncio.Event()

    async def write_much(peer: Peer) -> None:
        await respond(200, bytes(LARGE))(peer)
        written.set()

    async with (
        ScriptedUpstream() as up,
        RawClient(up.port, receive_buffer_bytes=4096) as client,
    ):
        up.on_request(write_much)
        await client.send(GET)
        await client.read_head()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(written.wait(), 0.05)
        while await client.read_part():
            pass
        await asyncio.wait_for(written.wait(), PATIENCE_S)


async def test_a_tunnel_echoes_what_came_with_the_request_and_after_it() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: up\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
    switch = interim(101, [(b"Connection", b"upgrade"), (b"Upgrade", b"echo")])
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(play(switch, echo()))
        await client.send(upgrade + b"early")

        answer = await client.read_response()
        early = await client.read_exactly(5)
        await client.send(b"later")
        later = await client.read_exactly(5)

    assert (answer.status, early, later) == (101, b"early", b"later")


async def test_a_port_refuses_and_comes_back_while_old_connections_go_on() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as old:
        await up.wait_until(lambda: bool(up.connections))
        await up.refuse()
        with pytest.raises(ConnectionRefusedError):
            async with RawClient(up.port):
                pass
        await old.send(GET)
        kept = await old.read_response()
        up.listen()
        async with RawClient(up.port) as new:
            await new.send(GET)
            back = await new.read_response()

    assert (kept.status, back.status) == (200, 200)


async def test_dropping_connections_resets_them() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        await client.send(GET)
        await client.read_response()
        await up.drop()
        await client.expect_reset()


async def test_leaving_closes_idle_connections_without_a_reset() -> None:
    async with ScriptedUpstream() as up:
        client = RawClient(up.port)
        await client.__aenter__()
        await client.send(GET)
        await client.read_response()

    async with client:
        await client.expect_closed()


async def test_waiting_for_what_never_comes_says_what_was_there() -> None:
    async with ScriptedUpstream() as up:
        with pytest.raises(AssertionError, match="ScriptedUpstream"):
            await up.wait_until(lambda: bool(up.requests), timeout_s=0.01)


async def test_an_answer_that_ends_too_early_is_told_from_a_whole_one() -> None:
    async with ScriptedUpstream() as up, RawClient(up.port) as client:
        up.on_request(play(half_body(body=b"ha"), close()))
        await client.send(GET)

        with pytest.raises(BrokenOffError) as caught:
            await client.read_response()

    assert caught.value.answer is not None
    assert caught.value.answer.body == b"ha"


async def test_connecting_to_a_blackhole_hangs() -> None:
    loop = asyncio.get_running_loop()
    async with blackhole() as port:
        with socket.socket() as sock:
            sock.settimeout(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_connect(sock, ("127.0.0.1", port)), 0.1)
