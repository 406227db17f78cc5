"""An ASGI server for one request, and a call of the ASGI face between it and played instances.

The rule: nothing happens of its own accord, and a call leaves nothing behind: no task, no deadline,
no connection in hand, and one settled request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from gateway.edge.asgi import AnswerBrokenOffError, AsgiFace, Message
from gateway.edge.peers import Peers
from gateway.proxy.exchange import Exchange
from tests.fakes.engine import Stage
from tests.fakes.sides import FakeConnection
from tests.fakes.waiting import PATIENCE_S, wait_until


class FakeServer:
    """What an ASGI server does for one request; `sent` is what it was given.

    `receive` gives what the test has put in, then waits. While it is not `takes`, `send` waits.
    """

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.given: deque[Message] = deque()
        self.asked = 0
        self.takes = asyncio.Event()
        self.takes.set()
        self._is_given = asyncio.Event()

    def gives(self, body: bytes = b"", *, more: bool = False) -> None:
        """Let the client send a piece of its body."""
        self.give({"type": "http.request", "body": body, "more_body": more})

    def leaves(self) -> None:
        """Let the client leave."""
        self.give({"type": "http.disconnect"})

    async def receive(self) -> Message:
        self.asked += 1
        while not self.given:
            self._is_given.clear()
            await self._is_given.wait()
        return self.given.popleft()

    async def send(self, message: Message) -> None:
        await self.takes.wait()
        self.sent.append(message)

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.sent[0]["status"])

    @property
    def fields(self) -> dict[bytes, bytes]:
        """The fields of the answer."""
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        """All of the body so far."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def is_whole(self) -> bool:
        """Whether the last message said that it is."""
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    def give(self, message: Message) -> None:
        """Let `receive` give this."""
        self.given.append(message)
        self._is_given.set()


class Call:
    """One request under way: the task of the face, between a server and a Stage."""

    def __init__(self, stage: Stage, server: FakeServer, task: asyncio.Task[None]) -> None:
        self.stage = stage
        self.server = server
        self.task = task

    async def reaches_instance(self) -> FakeConnection:
        """Wait until the request is with an instance."""
        made = self.stage.pools["a"].made
        await wait_until(lambda: made)
        return made[-1]

    def moment_passes(self) -> None:
        """Let so much time pass that the face begins to look whether the client is still there."""
        watched = self.stage.deadlines.watched
        (reading,) = [one for one in watched if not isinstance(one, Exchange)]
        reading.expire(0.0)

    async def sends(self, count: int) -> None:
        """Wait until the server was given so many messages."""
        await wait_until(lambda: len(self.server.sent) >= count)


def scope_with(**changes: Any) -> dict[str, Any]:
    """Make the scope of a GET."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/x",
        "raw_path": b"/api/x",
        "query_string": b"",
        "headers": [(b"host", b"shop.example")],
        "client": ("192.0.2.1", 4711),
    }
    scope.update(changes)
    return scope


def posting(*fields: tuple[bytes, bytes], **changes: Any) -> dict[str, Any]:
    """Make the scope of a POST with these fields."""
    return scope_with(method="POST", headers=[(b"host", b"a"), *fields], **changes)


@asynccontextmanager
async def calling(scope: dict[str, Any], *, expects: str = "return") -> AsyncIterator[Call]:
    """Call the face; when the test is done the call must have ended as it `expects`."""
    stage, server = Stage(), FakeServer()
    stage.pools["a"].warm_up()
    spawned: list[asyncio.Task[None]] = []

    def spawn(work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        spawned.append(tasks.create_task(work, name=name))
        return spawned[-1]

    face = AsgiFace(stage.engine, Peers(()), spawn)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        ended: list[str] = []

        async def serve() -> None:
            try:
                await face(scope, server.receive, server.send)
                ended.append("return")
            except AnswerBrokenOffError:
                task = asyncio.current_task()
                assert task is not None
                assert not task.cancelling(), "whoever called it would take it for cancelled"
                ended.append("broken off")
            except asyncio.CancelledError:
                ended.append("cancelled")

        call = Call(stage, server, tasks.create_task(serve()))
        yield call
        await call.task
        assert [expects] == ended
        await wait_until(lambda: all(task.done() for task in spawned))
    stage.assert_all_is_settled()
    assert 1 == len(stage.observer.settled_ones)


def flush(connection: FakeConnection) -> None:
    """Let what was told leave, as a connection does at the end of each read."""
    assert connection.exchange is not None
    connection.exchange.client.flush()


def answer(connection: FakeConnection, status: int = 200, body: bytes = b"body") -> None:
    """Let the instance answer in full."""
    connection.answer(status, body)
    flush(connection)
