"""A connection reads in small pieces once it is told to, and nothing else changes."""

from __future__ import annotations

import asyncio

from gateway.runtime.pieces import PIECE_BYTES, Buffer, read_in_pieces
from tests.fakes.waiting import wait_until


class Sizes(asyncio.Protocol):
    """Notes how large each read is; reads in pieces after the first one."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.sizes: list[int] = []
        self.data = bytearray()
        self.events: list[str] = []
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.sizes.append(len(data))
        if len(self.sizes) == 1:
            read_in_pieces(self.transport, self, self._buffer)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc}")

    def pause_writing(self) -> None:
        self.events.append("paused")

    def resume_writing(self) -> None:
        self.events.append("resumed")


async def test_a_large_body_is_read_in_pieces_to_its_end() -> None:
    loop = asyncio.get_running_loop()
    buffer = Buffer()
    made: list[Sizes] = []

    def make() -> Sizes:
        made.append(Sizes(buffer))
        return made[-1]

    sent = bytes(range(256)) * 12_000
    async with await loop.create_server(make, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, other = await asyncio.open_connection("127.0.0.1", port)  # it shares the buffer
        for start in range(0, len(sent), 100_000):
            writer.write(sent[start : start + 100_000])
            other.write(b"o" * 1000)
            await writer.drain()
        await wait_until(lambda: len(made[0].data) == len(sent))

        while "paused" not in made[0].events:
            made[0].transport.write(bytes(1024 * 1024))
            await asyncio.sleep(0)
        while "resumed" not in made[0].events:
            await reader.read(1024 * 1024)
        writer.write_eof()
        await wait_until(lambda: "eof" in made[0].events)
        writer.transport.abort()
        await wait_until(lambda: made[0].events[-1].startswith("lost"))
        other.close()
        await wait_until(lambda: made[1].events[-1:] == ["lost None"])

    assert sent == made[0].data
    assert max(made[0].sizes[1:]) <= PIECE_BYTES
    assert set(made[1].data) == {ord("o")}


class Closing(asyncio.Transport):
    """A transport that has closed already."""

    def is_closing(self) -> bool:
        return True


def test_a_connection_that_is_closed_is_left_alone() -> None:
    buffer = Buffer()

    read_in_pieces(Closing(), Sizes(buffer), buffer)
