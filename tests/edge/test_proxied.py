"""A listener behind a proxy that passes bytes: who becomes a connection, and who does not."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from structlog.testing import capture_logs

from gateway.edge.proxied import ProxiedListener, Security
from gateway.edge.proxy_protocol import Told
from tests.fakes.client import RawClient
from tests.fakes.waiting import wait_until

FIRST = b"PROXY TCP4 203.0.113.7 10.0.0.1 51000 443\r\n"
PLAIN = Security(context=None, handshake_timeout_s=None, shutdown_timeout_s=None)


class Echo(asyncio.Protocol):
    """Sends back whatever comes, and knows what it was told."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Stage:
    """A listener with what it made."""

    def __init__(self, listener: socket.socket, tasks: asyncio.TaskGroup, timeout_s: float) -> None:
        self.made: list[Echo] = []
        self.port: int = listener.getsockname()[1]
        self.proxied = ProxiedListener(
            listener, self._make, spawn=tasks.create_task, security=PLAIN, head_timeout_s=timeout_s
        )

    def _make(self, told: Told) -> Echo:
        self.made.append(Echo(told))
        return self.made[-1]


@asynccontextmanager
async def staged(timeout_s: float = 5.0) -> AsyncIterator[Stage]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as tasks:
            stage = Stage(listener, tasks, timeout_s)
            yield stage
            stage.proxied.close()
            await stage.proxied.wait_closed()
            for one in stage.made:
                one.transport.abort()


async def test_what_follows_in_the_same_segment_belongs_to_the_connection() -> None:
    async with staged() as stage, RawClient(stage.port) as client:
        await client.send(FIRST + b"hello")

        assert b"hello" == await client.read_exactly(5)
        assert [Told("203.0.113.7", len(FIRST), 443)] == [one.told for one in stage.made]


async def test_each_byte_may_come_by_itself() -> None:
    async with staged() as stage, RawClient(stage.port) as client:
        for byte in FIRST + b"hi":
            await client.send(bytes([byte]))
            await asyncio.sleep(0)

        assert b"hi" == await client.read_exactly(2)
        assert "203.0.113.7" == stage.made[0].told.address


async def test_who_says_nothing_is_dropped_when_the_time_is_over() -> None:
    with capture_logs() as events:
        async with staged(timeout_s=0.05) as stage, RawClient(stage.port) as client:
            await client.send(FIRST[:20])
            await client.expect_closed()

    assert [] == stage.made
    assert [("connection_refused", "debug")] == [(one["event"], one["log_level"]) for one in events]


async def test_those_that_have_not_begun_are_dropped_at_the_end() -> None:
    async with staged() as stage, RawClient(stage.port) as client:
        await wait_until(lambda: "1 waiting" in repr(stage.proxied))
        stage.proxied.close()
        await stage.proxied.wait_closed()
        await client.expect_closed()

        assert "0 waiting" in repr(stage.proxied)
        stage.proxied._resume()  # so that leaving can close it once more


class Exhausted:
    """A listening socket that fails once, as when there are no file descriptors left."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._has_failed = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self._has_failed:
            self._has_failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def getsockname(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    def settimeout(self, timeout_s: float) -> None:
        self._listener.settimeout(timeout_s)


@pytest.mark.slow
async def test_a_listener_that_cannot_accept_pauses_and_goes_on() -> None:
    """Asking again at once, and again, would take all the time there is."""
    with capture_logs() as events, socket.create_server(("127.0.0.1", 0)) as listener:
        exhausted = cast("socket.socket", Exhausted(listener))
        async with asyncio.TaskGroup() as tasks:
            stage = Stage(exhausted, tasks, 5.0)
            async with RawClient(stage.port) as client:
                await client.send(FIRST + b"hello")
                assert b"hello" == await client.read_exactly(5)
            stage.proxied.close()
            stage.made[0].transport.abort()

    assert ["accept_failed"] == [one["event"] for one in events]
