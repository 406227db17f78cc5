"""An instance that floods, and takes any flood: `python -m benchmarks.apps.flood PORT`.

`/chunks` is answered by chunks of one byte without end, `/tunnel` by a tunnel whose bytes are
dropped; of all else the body is dropped.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from benchmarks.floods import CHUNKS
from benchmarks.frames import accept

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
_KEY = b"sec-websocket-key:"
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._has_head = False
        self._floods = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not derived from it

    def data_received(self, data: bytes) -> None:
        if self._has_head:
            return
        self._received += data
        head, found, _ = self._received.partition(b"\r\n\r\n")
        if found:
            self._has_head = True
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        target = head.split(b" ", 2)[1]
        if target == b"/chunks":
            self._transport.write(_HEAD)
            self._floods = True
            self.resume_writing()
        elif target == b"/tunnel":
            lines = [line for line in head.split(b"\r\n") if line.lower().startswith(_KEY)]
            key = lines[0].partition(b":")[2].strip()
            self._transport.write(_SWITCH + b"Sec-WebSocket-Accept: " + accept(key) + b"\r\n\r\n")
        elif target != b"/read":
            self._has_head, self._received = False, b""
            self._transport.write(_EMPTY)

    def resume_writing(self) -> None:
        if self._floods and not self._transport.is_closing():
            self._transport.write(CHUNKS)
            if not self._transport.get_write_buffer_size():  # then it is not called again
                asyncio.get_running_loop().call_soon(self.resume_writing)


async def _serve(port: int) -> None:
    await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
