"""The ASGI face between plain `receive` and `send`: no server, played instances."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gateway.core.failure import Failure
from gateway.core.message import AnswerHead
from gateway.edge.asgi import AsgiFace
from gateway.edge.peers import Peers
from tests.fakes.asgi import FakeServer, answer, calling, flush, posting, scope_with
from tests.fakes.engine import Stage
from tests.fakes.waiting import wait_until

CHUNK = b"x" * 100_000


# --- Requests and answers ------------------------------------------------------------------------


async def test_a_request_is_passed_on_and_its_answer_back() -> None:
    async with calling(scope_with(query_string=b"q=1", raw_path=b"/api/%7Ex%2Fy")) as call:
        call.server.gives()
        connection = await call.reaches_instance()
        answer(connection, 200, b"body")

    assert connection.sent.startswith(
        b"GET /api/~x%2Fy?q=1 HTTP/1.1\r\nhost: shop.example\r\nX-Forwarded-For: 192.0.2.1\r\n"
    )
    assert (200, b"body", True) == (call.server.status, call.server.body, call.server.is_whole)
    assert {b"x-from", b"date", b"x-request-id"} == set(call.server.fields)
    assert 2 == len(call.server.sent)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/api/x", b"/api/x"),
        ("/api/a b", b"/api/a%20b"),
        ("/api/100%", b"/api/100%25"),
        ("/api/é?", b"/api/%C3%A9%3F"),
        ("/api/@:!$&'()*+,;=", b"/api/@:!$&'()*+,;="),
    ],
)
async def test_a_server_without_raw_paths_can_be_used_too(path: str, sent: bytes) -> None:
    scope = scope_with(path=path, raw_path=None)
    async with calling(scope) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert connection.sent.startswith(b"GET " + sent + b" HTTP/1.1\r\n")


async def test_a_client_without_an_address_is_one_that_is_not_known() -> None:
    async with calling(scope_with(client=None)) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert b"X-Forwarded-For" not in connection.sent


async def test_a_body_is_passed_on_piece_by_piece() -> None:
    scope = posting((b"content-length", b"6"), (b"expect", b"100-continue"))
    async with calling(scope) as call:
        connection = await call.reaches_instance()
        call.server.gives(b"abc", more=True)
        await wait_until(lambda: connection.sent.endswith(b"\r\n\r\nabc"))
        call.server.gives(b"", more=True)
        call.server.gives(b"def")
        await wait_until(lambda: connection.sent.endswith(b"abcdef"))
        answer(connection, 201, b"done")

    assert b"content-length: 6\r\n" in connection.sent
    assert b"xpect" not in connection.sent
    assert "reusable" == connection.ending
    assert 201 == call.server.status


@pytest.mark.parametrize("value", [b"a\r\nX-Injected: yes", b"a\nb", b"a\rb", b"a\0b"])
@pytest.mark.parametrize("beside", [[], [(b"expect", b"100-continue")]], ids=["", "expect"])
async def test_no_line_gets_in_by_a_field(value: bytes, beside: list[tuple[bytes, bytes]]) -> None:
    """Not even in the place of one that does not cross."""
    fields = [(b"host", b"a"), *beside, (b"x-name", value)]
    async with calling(scope_with(headers=fields)) as call:
        await wait_until(lambda: call.server.is_whole)

    assert (400, b"bad_request") == (call.server.status, call.server.fields[b"x-gateway-reason"])


async def test_a_body_that_is_shorter_than_it_says_is_refused() -> None:
    async with calling(posting((b"content-length", b"6"))) as call:
        await call.reaches_instance()
        call.server.gives(b"abc")
        await wait_until(lambda: call.server.is_whole)

    assert (400, b"bad_request") == (call.server.status, call.server.fields[b"x-gateway-reason"])


@pytest.mark.parametrize(
    ("first", "framing"),
    [
        ({"body": b"abc", "more_body": False}, b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ({"body": b"", "more_body": True}, b"Transfer-Encoding: chunked\r\n\r\n"),
        ({"body": b"", "more_body": False}, b"Via: 1.1 gateway\r\n\r\n"),
        ({}, b"Via: 1.1 gateway\r\n\r\n"),
    ],
)
async def test_http_2_tells_with_its_first_message_whether_there_is_a_body(
    first: dict[str, Any], framing: bytes
) -> None:
    async with calling(posting(http_version="2")) as call:
        call.server.give({"type": "http.request", **first})
        connection = await call.reaches_instance()
        await wait_until(lambda: framing in connection.sent)
        answer(connection)


async def test_http_2_tells_a_length_like_anybody_else() -> None:
    async with calling(posting((b"content-length", b"3"), http_version="2")) as call:
        connection = await call.reaches_instance()
        call.server.gives(b"abc")
        await wait_until(lambda: connection.sent.endswith(b"\r\n\r\nabc"))
        assert b"content-length: 3\r\n" in connection.sent
        answer(connection)


@pytest.mark.parametrize(
    ("length", "status", "told"), [(5, 200, b"5"), (5, 304, None), (None, 200, None)]
)
async def test_a_length_is_told_but_not_of_a_body_that_never_comes(
    length: int | None, status: int, told: bytes | None
) -> None:
    async with calling(scope_with()) as call:
        connection = await call.reaches_instance()
        lines = b"" if length is None else b"\r\nContent-Length: %d" % length
        head = AnswerHead(status, b"", lines)
        head.length = length
        assert connection.exchange is not None
        connection.exchange.upstream_head(head, 0)
        if status == 200:
            connection.body(b"12345")
        connection.end([(b"Checksum", b"1")])
        connection.exchange.client.flush()

    assert told == call.server.fields.get(b"content-length")
    assert call.server.is_whole


async def test_interim_answers_are_left_out() -> None:
    async with calling(scope_with()) as call:
        connection = await call.reaches_instance()
        connection.interim(103)
        answer(connection)

    assert 200 == call.server.status


@pytest.mark.parametrize(
    ("root", "raw", "sent"),
    [
        ("/gw", b"/gw/api/x%2Fy", b"/api/x%2Fy"),
        ("/gw/", b"/gw/api/x", b"/api/x"),
        ("/a b", b"/a%20b/api/x", b"/api/x"),
        # Behind a proxy that strips, with a server that does not put it back.
        ("/gw", b"/api/x", b"/api/x"),
        ("/ap", b"/api/x", b"/api/x"),
        ("", b"/api/x", b"/api/x"),
    ],
)
async def test_what_is_below_a_mount_is_matched(root: str, raw: bytes, sent: bytes) -> None:
    async with calling(scope_with(root_path=root, raw_path=raw)) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert connection.sent.startswith(b"GET " + sent + b" HTTP/1.1")


async def test_a_port_may_be_text() -> None:
    async with calling(scope_with(server=("127.0.0.1", "8000"))) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert b"\r\nX-Forwarded-Port: 8000\r\n" in connection.sent


# --- Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (scope_with(headers=[]), 400),
        (scope_with(headers=[(b"host", b"a"), (b"host", b"b")]), 400),
        (posting((b"content-length", b"+5")), 400),
        (posting((b"content-length", b"5"), (b"transfer-encoding", b"chunked")), 400),
        (scope_with(method="CONNECT"), 501),
        (scope_with(raw_path=b"/nowhere"), 404),
        (scope_with(raw_path=b"/api/..%2fx"), 400),
        (scope_with(raw_path=b"*", method="OPTIONS"), 204),
        (scope_with(raw_path=b"*"), 400),
        (posting((b"connection", b"upgrade"), (b"upgrade", b"websocket")), 501),
    ],
)
async def test_what_the_gateway_answers_itself(scope: dict[str, Any], status: int) -> None:
    async with calling(scope) as call:
        await wait_until(lambda: call.server.is_whole)

    assert status == call.server.status
    assert [] == call.stage.pools["a"].made


async def test_an_offer_that_a_client_can_do_without_is_forgotten() -> None:
    scope = posting((b"connection", b"upgrade"), (b"upgrade", b"h2c"))
    async with calling(scope) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert b"pgrade" not in connection.sent


# --- Who waits for whom --------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_the_instance() -> None:
    async with calling(scope_with()) as call:
        connection = await call.reaches_instance()
        call.server.takes.clear()
        connection.head()
        for _ in range(2):
            connection.body(CHUNK)
        flush(connection)
        assert not connection.is_paused
        connection.body(CHUNK)
        assert connection.is_paused

        call.server.takes.set()
        await wait_until(lambda: not connection.is_paused)
        connection.end()
        flush(connection)

    assert 3 * CHUNK == call.server.body
    assert call.server.is_whole


async def test_tiny_pieces_for_a_client_that_takes_nothing_become_one_message() -> None:
    async with calling(scope_with()) as call:
        connection = await call.reaches_instance()
        call.server.takes.clear()
        connection.head()
        flush(connection)
        for _ in range(1000):
            connection.body(b"x")
            flush(connection)
        call.server.takes.set()
        await wait_until(lambda: len(call.server.body) == 1000)
        connection.end()
        flush(connection)
        await wait_until(lambda: call.server.is_whole)

    assert 3 == len(call.server.sent)


async def test_an_instance_that_does_not_read_stops_the_client() -> None:
    async with calling(posting((b"content-length", b"9"))) as call:
        connection = await call.reaches_instance()
        connection.pauses()
        call.server.gives(b"abc", more=True)  # one message was asked for already
        call.server.gives(b"def", more=True)
        await wait_until(lambda: connection.sent.endswith(b"abc"))
        assert 1 == len(call.server.given)

        connection.resumes()
        await wait_until(lambda: connection.sent.endswith(b"def"))
        call.server.leaves()


# --- Broken off ----------------------------------------------------------------------------------


async def test_an_answer_that_breaks_off_is_not_ended() -> None:
    async with calling(scope_with(), expects="broken off") as call:
        connection = await call.reaches_instance()
        connection.head()
        connection.body()
        await call.sends(0)
        connection.fail(Failure.UPSTREAM_BROKE_OFF)

    assert not call.server.is_whole
    assert 200 == call.server.status


async def test_an_answer_that_breaks_off_behind_its_head_has_that() -> None:
    """Without one the server would make up an answer, and that one would be whole."""
    async with calling(scope_with(), expects="broken off") as call:
        connection = await call.reaches_instance()
        connection.head()
        connection.fail(Failure.UPSTREAM_BROKE_OFF)

    assert [200] == [message.get("status") for message in call.server.sent]


async def test_an_answer_that_breaks_off_between_two_pieces_ends_there() -> None:
    async with calling(scope_with(), expects="broken off") as call:
        connection = await call.reaches_instance()
        connection.head()
        connection.body()
        flush(connection)
        await call.sends(2)
        connection.fail(Failure.UPSTREAM_BROKE_OFF)

    assert (b"body", False) == (call.server.body, call.server.is_whole)


async def test_an_answer_that_breaks_off_while_the_client_reads_nothing_ends_too() -> None:
    async with calling(scope_with(), expects="broken off") as call:
        connection = await call.reaches_instance()
        call.server.takes.clear()
        connection.head()
        connection.body()
        flush(connection)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection.fail(Failure.UPSTREAM_BROKE_OFF)

    assert [] == call.server.sent


@pytest.mark.parametrize("is_answering", [True, False])
async def test_a_client_that_leaves_ends_its_request(*, is_answering: bool) -> None:
    async with calling(scope_with()) as call:
        connection = await call.reaches_instance()
        if is_answering:
            connection.head()
            connection.body()
        call.server.leaves()
        call.moment_passes()

    assert [Failure.CLIENT_GONE] == [one.failure for one in call.stage.observer.settled_ones]
    assert "closed" == connection.ending
    assert not call.server.is_whole


async def test_nobody_is_waited_for_where_an_answer_comes_at_once() -> None:
    """It would take a task for each request, to notice what hardly ever happens."""
    async with calling(scope_with()) as call:
        connection = await call.reaches_instance()
        answer(connection)

    assert call.server.is_whole
    assert 0 == call.server.asked


async def test_a_server_that_gives_up_on_a_request_ends_it() -> None:
    async with calling(scope_with(), expects="cancelled") as call:
        connection = await call.reaches_instance()
        call.task.cancel()

    assert [Failure.CLIENT_GONE] == [one.failure for one in call.stage.observer.settled_ones]
    assert "closed" == connection.ending


async def test_a_server_that_gives_up_while_it_sends_ends_the_request_too() -> None:
    async with calling(scope_with(), expects="cancelled") as call:
        connection = await call.reaches_instance()
        call.server.takes.clear()
        connection.head()
        flush(connection)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.task.cancel()

    assert "closed" == connection.ending


async def test_a_mistake_surfaces_and_leaves_nothing_behind() -> None:
    stage, server = Stage(), FakeServer()
    del stage.engine.routes

    def spawn(work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        raise AssertionError("nothing is left to be read")

    with pytest.raises(AttributeError):
        await AsgiFace(stage.engine, Peers(()), spawn)(scope_with(), server.receive, server.send)

    stage.assert_all_is_settled()
