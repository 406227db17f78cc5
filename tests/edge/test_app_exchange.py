"""An app between the sides of an Exchange: no sockets, and time as numbers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from gateway.core.config import RoutingConfig
from gateway.core.failure import Failure
from gateway.core.message import Fields, lines_of
from gateway.core.policy import Timeouts
from gateway.core.routing import Route, RouteMatch
from gateway.edge.app_exchange import AppExchange
from gateway.edge.asgi import Message, Receive, Scope, Send
from gateway.edge.mounts import Mounts
from tests.fakes.apps import answers, body_of, piece, puppet, start
from tests.fakes.engine import Stage
from tests.fakes.sides import FakeClient

ANY = ContextVar("ANY", default="nobody's")


class AppPlay:
    """One request to the puppet, whose client is played by the test."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.client = FakeClient()

    @property
    def exchange(self) -> AppExchange:
        """What goes on in the place of the Exchange that came to the route."""
        assert isinstance(self.client.exchange, AppExchange)
        return self.client.exchange

    def begin(
        self,
        *fields: tuple[bytes, bytes],
        length: int | None = 0,
        body: bytes = b"",
        is_trusted: bool = False,
    ) -> None:
        """Let the client send the head of a request, with its body if it is given."""
        request = self.stage.request(b"GET" if length == 0 else b"POST", length, b"/app")
        request.lines += lines_of(list(fields))
        request.crossing = request.lines
        request.peer.is_trusted = is_trusted
        request.body = body
        self.stage.engine.exchange(request, self.client).begin(self.stage.clock())

    def body(self, chunk: bytes) -> None:
        """Let the client send a piece of its body."""
        self.exchange.client_body(chunk, self.stage.clock())

    def end(self, trailers: Fields | None = None) -> None:
        """Let the client end its body."""
        self.exchange.client_end(trailers or [], self.stage.clock())

    async def runs(self) -> None:
        """Let the app go as far as it can."""
        for _ in range(10):
            await asyncio.sleep(0)

    @property
    def outcome(self) -> tuple[int, Failure | None]:
        """What the client was told, and how it failed."""
        return self.exchange.status, self.exchange.failure


@contextlib.asynccontextmanager
async def playing(stage: Stage, **route: Any) -> AsyncIterator[AppPlay]:
    """Put the puppet on /app; in the end nothing must be left."""
    puppet.reset()
    route = {"timeouts": Timeouts(response_s=15, idle_s=30), **route}

    def spawn(work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        return tasks.create_task(work, name=name)

    mounts = Mounts(
        stage.engine,
        spawn=spawn,
        clock=stage.clock,
        client_body_timeout_s=10,
    )
    to_app = Route(id="app", match=RouteMatch(path=b"/app"), app="tests.fakes.apps:puppet", **route)
    config = RoutingConfig(routes=(to_app,), services={})
    stage.engine.use(config, client_body_timeout_s=10, mount=mounts.mount)
    play = AppPlay(stage)
    async with asyncio.TaskGroup() as tasks:
        yield play
        await play.runs()  # the clock stands, so that nothing can be waited for
        if puppet.ended != len(puppet.scopes):
            raise AssertionError("the app has not ended")
    assert play.client.is_over
    assert stage.deadlines.watched == set()
    assert len(stage.observer.settled_ones) == 1


async def waits_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    """Do nothing."""
    await asyncio.Event().wait()


async def test_a_head_and_its_body_leave_in_one_piece(stage: Stage) -> None:
    async with playing(stage) as play:
        play.begin()
        await play.runs()

    assert play.client.said == ["head 200", "body", "end"]
    assert play.client.flushes == 1
    assert play.client.head is not None
    assert play.client.head.length == 2
    assert play.exchange.sent_bytes == 2


async def test_a_body_that_came_with_its_head_is_there_at_once(stage: Stage) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(await receive())
        await send(start())
        await send(piece(b"x", more=False))

    got: list[Message] = []
    async with playing(stage) as play:
        puppet.plays(part)
        play.begin(length=4, body=b"four")
        await play.runs()

    assert got == [{"type": "http.request", "body": b"four", "more_body": False}]
    assert play.outcome == (200, None)


@pytest.mark.parametrize(("is_trusted", "told"), [(False, []), (True, [b"5000"])])
async def test_how_much_time_is_left_is_what_a_trusted_peer_says(
    stage: Stage, *, is_trusted: bool, told: list[bytes]
) -> None:
    async with playing(stage, deadline_header=b"x-time-left") as play:
        play.begin((b"X-Time-Left", b"5000"), is_trusted=is_trusted)
        await play.runs()

    fields = puppet.scopes[0]["headers"]
    assert told == [value for name, value in fields if name == b"x-time-left"]


@pytest.mark.parametrize(
    ("part", "length", "late_after_s", "expected"),
    [
        (waits_for_ever, 0, 15, (504, Failure.HEAD_TIMEOUT)),
        (waits_for_ever, 5, 15, (504, Failure.HEAD_TIMEOUT)),
        ("receives", 5, 10, (408, Failure.REQUEST_TIMEOUT)),
        ("begins", 0, 30, (200, Failure.APP_FAILED)),
    ],
)
async def test_whoever_is_waited_for_is_named(
    stage: Stage, part: Any, length: int, late_after_s: float, expected: tuple[int, Failure]
) -> None:
    async def receives(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def begins(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"some"))
        await asyncio.Event().wait()

    async with playing(stage) as play:
        puppet.plays({"receives": receives, "begins": begins}.get(part, part))
        play.begin(length=length)
        await play.runs()
        stage.pass_time(late_after_s - 0.1)
        assert not play.client.is_over
        stage.pass_time(0.2)
        assert play.client.is_over
        await play.runs()
        stage.pass_time(2.1)

    assert play.outcome == expected


async def test_what_moves_is_not_late(stage: Stage) -> None:
    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await body_of(receive)
        await send(start())
        await send(piece(b"x"))
        await may_end.wait()
        await send(piece(b"y", more=False))

    may_end = asyncio.Event()
    async with playing(stage) as play:
        puppet.plays(part)
        play.begin(length=3)
        for _ in range(3):
            await play.runs()
            stage.pass_time(9)
            play.body(b"x")
        play.end()
        await play.runs()
        stage.pass_time(29)
        may_end.set()
        await play.runs()

    assert play.outcome == (200, None)
    assert play.exchange.upload is not None
    assert play.exchange.upload.received_bytes == 3


async def test_timeouts_request_is_over_all(stage: Stage) -> None:
    async with playing(stage, timeouts=Timeouts(request_s=1)) as play:
        puppet.plays(waits_for_ever)
        play.begin()
        await play.runs()
        stage.pass_time(1)
        assert play.outcome == (504, Failure.REQUEST_DEADLINE)
        await play.runs()
        stage.pass_time(2.1)

    assert [type(error) for error in puppet.errors] == [asyncio.CancelledError]


async def test_a_client_that_takes_nothing_holds_the_app_and_is_given_up_in_the_end(
    stage: Stage,
) -> None:
    sent: list[str] = []

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(2):
            await send(piece(b"x"))
            sent.append("piece")

    async with playing(stage) as play:
        puppet.plays(part)
        play.begin()
        play.exchange.client_paused()
        await play.runs()
        assert sent == []
        play.exchange.client_resumed(stage.clock())
        play.exchange.client_paused()
        await play.runs()
        stage.pass_time(30)

    assert play.outcome == (200, Failure.CLIENT_GONE)
    assert [type(error).__name__ for error in puppet.errors] == ["ClientLeftError"]


async def test_a_body_that_nobody_takes_is_read_no_further(stage: Stage) -> None:
    may_go_on = asyncio.Event()

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await may_go_on.wait()
        size = len((await receive())["body"])
        await answers(200, b"%d" % size)(scope, receive, send)

    async with playing(stage) as play:
        puppet.plays(part)
        play.begin(length=None)
        await play.runs()
        play.body(b"x" * 65_535)
        assert not play.client.is_paused
        play.body(b"x")
        assert play.client.is_paused
        may_go_on.set()
        await play.runs()

    assert not play.client.is_paused
    assert play.client.body == b"65536"


async def test_100_is_said_when_the_body_is_wanted_and_only_then(stage: Stage) -> None:
    may_go_on = asyncio.Event()

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        await may_go_on.wait()
        await body_of(receive)
        await answers()(scope, receive, send)

    async with playing(stage) as play:
        puppet.plays(part)
        play.begin((b"Expect", b"100-Continue"), length=4)
        await play.runs()
        assert play.client.interims == []
        may_go_on.set()
        await play.runs()
        assert play.client.interims == [(100, [])]
        play.body(b"body")
        play.end()
        await play.runs()

    assert play.client.said[0] == "interim 100"
    assert play.outcome == (200, None)


@pytest.mark.parametrize("length", [2, 4])
async def test_a_body_of_another_length_than_it_says_is_refused(stage: Stage, length: int) -> None:
    async with playing(stage) as play:
        puppet.plays(waits_for_ever)
        play.begin(length=length)
        play.body(b"abc")
        play.end()
        play.body(b"more")
        play.end()
        await play.runs()
        stage.pass_time(2.1)

    assert play.outcome == (400, Failure.BAD_REQUEST)


async def test_a_request_with_a_body_that_is_too_long_never_reaches_the_app(stage: Stage) -> None:
    async with playing(stage, max_body_bytes=3) as play:
        play.begin(length=4)

    assert play.outcome == (413, Failure.BODY_TOO_LARGE)
    assert puppet.scopes == []


async def test_an_app_that_is_cancelled_from_outside_is_answered_for(stage: Stage) -> None:
    async with playing(stage) as play:
        puppet.plays(waits_for_ever)
        play.begin()
        await play.runs()
        assert play.exchange._task is not None
        play.exchange._task.cancel()
        await play.runs()

    assert play.outcome == (500, Failure.APP_FAILED)


async def test_a_client_that_leaves_before_the_app_had_its_first_turn_leaves_nothing(
    stage: Stage,
) -> None:
    async with playing(stage) as play:
        play.begin()
        play.exchange.client_gone(stage.clock())
        assert play.exchange._task is not None
        play.exchange._task.cancel()
        await play.runs()

    assert play.outcome == (0, Failure.CLIENT_GONE)
    assert puppet.scopes == []


async def test_a_mistake_of_ours_ends_it(stage: Stage) -> None:
    async with playing(stage) as play:
        puppet.plays(waits_for_ever)
        play.begin()
        await play.runs()
        play.exchange.break_down(stage.clock())
        stage.pass_time(2.1)

    assert play.outcome == (500, Failure.INTERNAL_ERROR)


async def test_what_comes_next_does_not_run_in_the_context_of_the_app(stage: Stage) -> None:
    """It would take the variables of one client's request into another's."""
    seen: list[str] = []

    class Client(FakeClient):
        def send_end(self, trailers: Fields) -> None:
            seen.append(ANY.get())
            super().send_end(trailers)

    async def part(scope: Scope, receive: Receive, send: Send) -> None:
        ANY.set("the first client's")
        await answers()(scope, receive, send)

    async with playing(stage) as play:
        puppet.plays(part)
        play.client = Client()
        play.begin()
        await play.runs()

    assert seen == ["nobody's"]
