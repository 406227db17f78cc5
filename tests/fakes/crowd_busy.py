"""Busy clients: each asks again as soon as it has its answer.

The rule: they do as little as they can for an answer, so that what is measured is the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from tests.fakes.crowd import Commands, Crowd, Told, connect, follow, running

_REQUEST = b"GET /busy HTTP/1.1\r\nHost: a\r\nUser-Agent: crowd\r\nAccept: */*\r\n\r\n"
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What they saw: `wrong` are answers that were not 200, and connections that were closed."""

    count: int
    wrong: list[str]
    p99_s: float


class BusyCrowd(Crowd):
    """Busy clients, each with one connection."""

    async def ask(self, for_s: float) -> Seen:
        """Let them ask for so long."""
        return Seen(**await self.tell("ask", for_s))


@asynccontextmanager
async def busy_crowd(port: int, count: int) -> AsyncIterator[BusyCrowd]:
    """Run so many for as long as this lasts."""
    async with running("tests.fakes.crowd_busy", port, count) as child:
        yield BusyCrowd(child)


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.wrong: list[str] = []
        self.is_asking = False
        self._sent_at_s = 0.0
        self._got = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.wrong.append(f"closed: {exc}")

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(_HEAD_END)
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not end or len(body) < int(length):
            return
        self._got = b""
        self.latencies_s.append(perf_counter() - self._sent_at_s)
        if not head.startswith(b"HTTP/1.1 200 "):
            self.wrong.append(head.decode("latin-1"))
        if self.is_asking:
            self.ask()

    def ask(self) -> None:
        self._sent_at_s = perf_counter()
        self._transport.write(_REQUEST)


class _Clients:
    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._all = [_Client() for _ in range(count)]
        self._are_connected = False

    async def ask(self, for_s: float) -> Told:
        if not self._are_connected:
            self._are_connected = True
            for client in self._all:
                await connect(client, self._port)
        for client in self._all:
            client.latencies_s.clear()
            client.is_asking = True
            client.ask()
        await asyncio.sleep(for_s)
        for client in self._all:
            client.is_asking = False
        ordered = sorted(one for client in self._all for one in client.latencies_s)
        wrong = [one for client in self._all for one in client.wrong]
        return {"count": len(ordered), "wrong": wrong, "p99_s": ordered[len(ordered) * 99 // 100]}


def _commands(port: int, count: int) -> Commands:
    return {"ask": _Clients(port, count).ask}


if __name__ == "__main__":
    follow(_commands)
