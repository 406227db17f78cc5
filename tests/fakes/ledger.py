"""An instance that writes down each request before it answers, and can be restarted in between.

`python -m tests.fakes.ledger PORT FILE IDLE_S` appends one line for each request whose head it has
read, `METHOD TARGET`, and answers a moment later with the target. The rule: what stands in the file
was sent to it, however it ended, for a file outlives the program that wrote to it. Connections that
are idle for IDLE_S are closed without a word, and what comes at that moment is lost. On SIGTERM it
leaves as good instances do: it takes no more connections, closes idle ones, and answers what it has
read. It imports little, for it must start fast.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

THINKING_S = 0.02
NETWORK_S = 0.03  # for how long a gateway in another place does not know of a close


class _Connection(asyncio.Protocol):
    """One connection; requests come one at a time, with a body that is as long as it says."""

    def __init__(self, file: int, idle_s: float, open_ones: set[_Connection]) -> None:
        self.is_gone = asyncio.Event()
        self._file = file
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._open_ones = open_ones
        self._unread = b""
        self._awaited_bytes = 0
        self._answer = b""
        self._is_leaving = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self)
        self.is_gone.set()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._idle is not None:
            self._idle.cancel()
        if not self._answer:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if not end:
                return
            self._unread = rest
            self._begin(head)
        if len(self._unread) >= self._awaited_bytes:
            self._unread = self._unread[self._awaited_bytes :]
            asyncio.get_running_loop().call_later(THINKING_S, self._reply)

    def leave(self) -> None:
        """Close, at once if nothing is in hand."""
        self._is_leaving = True
        if not self._answer:
            self._transport.close()

    def _close_unread(self) -> None:
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(NETWORK_S, self._transport.close)

    def _begin(self, head: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        method, target, _ = line.split(b" ")
        os.write(self._file, b"%b %b\n" % (method, target))
        named = dict(field.lower().split(b": ", 1) for field in fields)
        self._awaited_bytes = int(named.get(b"content-length", b"0"))
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(target)
        self._answer += b"\r\n" + target

    def _reply(self) -> None:
        answer, self._answer = self._answer, b""
        if self._transport.is_closing():
            return
        if self._is_leaving:
            answer = answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        self._transport.write(answer)
        if self._is_leaving:
            self._transport.close()
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._close_unread)


async def _serve(port: int, path: str, idle_s: float) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    connections: set[_Connection] = set()
    listener = await loop.create_server(
        lambda: _Connection(file, idle_s, connections), "127.0.0.1", port, backlog=1024
    )
    await told.wait()
    listener.close()
    leaving = tuple(connections)
    for connection in leaving:
        connection.leave()
    for connection in leaving:
        await connection.is_gone.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
