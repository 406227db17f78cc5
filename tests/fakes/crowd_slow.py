"""Slow clients: each sends one byte of an endless head a second, and comes again when it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.fakes.crowd import Commands, Crowd, Told, connect, follow, running
from tests.fakes.waiting import PATIENCE_S

_HEAD = b"GET /slow HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"z" * 1000
_EVERY_S = 1.0
_SLOTS = 100  # in each second, so that they do not all send at once


class SlowCrowd(Crowd):
    """Slow clients."""

    async def come(self) -> None:
        """Let them come; wait until all are there and the first one has been cut."""
        told = await self.tell("come", PATIENCE_S)
        assert told["wrong"] == []

    async def leave(self) -> int:
        """Let them leave; return how often one was told 408 and cut."""
        told = await self.tell("leave")
        assert told["wrong"] == []
        return int(told["cut"])


@asynccontextmanager
async def slow_crowd(port: int, count: int) -> AsyncIterator[SlowCrowd]:
    """Run so many for as long as this lasts."""
    async with running("tests.fakes.crowd_slow", port, count) as child:
        yield SlowCrowd(child)


class _Client(asyncio.Protocol):
    def __init__(self, crowd: _Clients) -> None:
        self._crowd = crowd
        self._sent_bytes = 0
        self._got = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.send()

    def data_received(self, data: bytes) -> None:
        self._got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._sent_bytes = 0
        got, self._got = self._got, b""
        self._crowd.lost(self, got)

    def send(self) -> None:
        if self._transport is not None:
            at = self._sent_bytes
            self._transport.write(_HEAD[at : at + 1])
            self._sent_bytes += 1

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Clients:
    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._all = [_Client(self) for _ in range(count)]
        self._tasks: asyncio.TaskGroup
        self._are_here = False
        self._cut = 0
        self._first_cut = asyncio.Event()
        self._wrong: list[str] = []

    async def come(self, within_s: float) -> Told:
        self._are_here = True
        self._cut = 0
        self._first_cut.clear()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        for slot in range(_SLOTS):
            self._tasks.create_task(self._pace(slot))
        await asyncio.wait_for(self._first_cut.wait(), within_s)
        return {"wrong": self._wrong}

    async def leave(self, _seconds: float) -> Told:
        self._are_here = False
        await self._tasks.__aexit__(None, None, None)
        for client in self._all:
            client.leave()
        return {"cut": self._cut, "wrong": self._wrong}

    def lost(self, client: _Client, got: bytes) -> None:
        """Count one that was cut, and let it come again."""
        if not self._are_here:
            return
        if got.startswith(b"HTTP/1.1 408 "):
            self._cut += 1
            self._first_cut.set()
        else:
            self._wrong.append(got.decode("latin-1"))
        self._tasks.create_task(connect(client, self._port))

    async def _pace(self, slot: int) -> None:
        """Let those of one slot come, and send a byte a second."""
        await asyncio.sleep(_EVERY_S * slot / _SLOTS)
        clients = self._all[slot::_SLOTS]
        for client in clients:
            await connect(client, self._port)
        while self._are_here:
            await asyncio.sleep(_EVERY_S)
            for client in clients:
                client.send()


def _commands(port: int, count: int) -> Commands:
    clients = _Clients(port, count)
    return {"come": clients.come, "leave": clients.leave}


if __name__ == "__main__":
    follow(_commands)
