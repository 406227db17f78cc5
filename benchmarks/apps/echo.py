"""An instance that sends WebSocket messages back: `python -m benchmarks.apps.echo PORT...`.

It opens the tunnel only for a request that was forwarded as it should be.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

from benchmarks.frames import MASKED_BYTES, accept, echo

_KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)
_NEEDED = (b"get /ws/", b"\r\nx-forwarded-for: ", b"\r\nupgrade: websocket\r\n")


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not derived from it

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_open:
            self._open()
            return
        while len(self._received) >= MASKED_BYTES:
            frame, self._received = self._received[:MASKED_BYTES], self._received[MASKED_BYTES:]
            self._transport.write(echo(frame))

    def _open(self) -> None:
        head, found, self._received = self._received.partition(b"\r\n\r\n")
        if not found:
            self._received = head
            return
        lowered = head.lower() + b"\r\n"
        key = _KEY.search(head)
        if key is None or not all(one in lowered for one in _NEEDED):
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        self._is_open = True
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept(key[1]) + b"\r\n\r\n"
        )


async def _serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(_Connection, "127.0.0.1", port)
    await loop.create_future()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve([int(word) for word in sys.argv[1:]]))
