"""A client that sends exactly the bytes it is given and reads only when it is told to.

The rule: no wait is longer than `timeout_s`, so a gateway that hangs fails the test instead of
stopping it. Answers are parsed by h11, which shares no code with
the gateway; whatever h11 refuses raises h11.RemoteProtocolError.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h11

from tests.fakes.waiting import PATIENCE_S

READ_BYTES = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Answer:
    """An answer; `body` grows while it is read, `interim` has the 1xx answers before it.

    `headers` keeps order, case and duplicates. A 101 is a final answer without a body.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    interim: list[Answer] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """List the values of all fields called `name`, in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class BrokenOffError(Exception):
    """The connection ended inside an answer; `answer` is what had come, None before its head."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer
        super().__init__(f"the connection ended before the answer did: {answer}")


class RawClient:
    """One TCP connection to this machine, over IPv4 unless `host` is `::1`.

    `source` is the address that it comes from; all of 127.0.0.0/8 is here. `receive_buffer_bytes`
    makes the kernel's buffer small: a test that then does not read makes back-pressure. The first
    read after a reset raises ConnectionResetError.
    """

    def __init__(
        self,
        port: int,
        *,
        timeout_s: float = PATIENCE_S,
        receive_buffer_bytes: int | None = None,
        source: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._sock.settimeout(0)
        if source:
            self._sock.bind((source, 0))
        if receive_buffer_bytes is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._parser = h11.Connection(h11.CLIENT)
        self._unread = b""
        self._answer: Answer | None = None

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout_s):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(self._sock, (self._host, self._port))
        except BaseException:
            self._sock.close()
            raise
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where this side of the connection is: IP address and port."""
        host, port = self._sock.getsockname()
        return host, port

    async def send(self, raw: bytes) -> None:
        """Send all of `raw`; TimeoutError when the other side does not take it in time."""
        async with asyncio.timeout(self._timeout_s):
            await asyncio.get_running_loop().sock_sendall(self._sock, raw)

    def half_close(self) -> None:
        """Send FIN; what the other side sends can still be read."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with RST: lingering for 0 s throws away what is unsent."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    async def read_some(self) -> bytes:
        """Read raw bytes: what is left over from an answer first; b"" when closed."""
        unread, self._unread = self._unread, b""
        if unread:
            return unread
        async with asyncio.timeout(self._timeout_s):
            return await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)

    async def read_exactly(self, size_bytes: int) -> bytes:
        """Read so many raw bytes, for instance from a tunnel."""
        got = b""
        while len(got) < size_bytes:
            piece = await self.read_some()
            if not piece:
                raise BrokenOffError(None)
            got += piece
        self._unread = got[size_bytes:] + self._unread
        return got[:size_bytes]

    async def read_head(self, method: bytes = b"GET") -> Answer:
        """Read up to the end of the answer's head; `method` is what was asked (HEAD: no body)."""
        self._parser = _parser_after(method)
        if self._unread:
            self._parser.receive_data(self._unread)
            self._unread = b""
        self._answer = None
        interim: list[Answer] = []
        while True:
            event = await self._next_event()
            if not isinstance(event, h11.InformationalResponse | h11.Response):
                raise BrokenOffError(None)
            answer = Answer(status=event.status_code, headers=event.headers.raw_items())
            if isinstance(event, h11.Response) or answer.status == 101:
                break
            interim.append(answer)
        answer.interim = interim
        self._answer = answer
        if answer.status == 101:
            self._unread, _ = self._parser.trailing_data
        return answer

    async def read_part(self) -> bytes:
        """Read the next piece of the body after `read_head`, b"" at its proper end."""
        if self._answer is None:
            raise RuntimeError("read_head comes first")
        event = await self._next_event()
        if isinstance(event, h11.Data):
            part = bytes(event.data)
            self._answer.body += part
            return part
        if not isinstance(event, h11.EndOfMessage):
            raise BrokenOffError(self._answer)
        self._answer.trailers = event.headers.raw_items()
        self._unread, _ = self._parser.trailing_data
        return b""

    async def read_response(self, method: bytes = b"GET") -> Answer:
        """Read a whole answer; BrokenOffError when the connection ends before it does."""
        answer = await self.read_head(method)
        while answer.status != 101 and await self.read_part():
            pass
        return answer

    async def read_until_closed(self) -> bytes:
        """Read raw bytes until the other side closes; ConnectionResetError when it resets."""
        got = b""
        while piece := await self.read_some():
            got += piece
        return got

    async def expect_closed(self) -> None:
        """Fail unless the other side closes, without a reset and without another byte."""
        try:
            assert await self.read_until_closed() == b""
        except ConnectionResetError:
            raise AssertionError("the connection was reset, not closed") from None

    async def expect_reset(self) -> None:
        """Fail unless the other side resets; bytes before that do not matter."""
        try:
            got = await self.read_until_closed()
        except ConnectionResetError:
            return
        raise AssertionError(f"the connection was closed, not reset, after {got!r}")

    async def _next_event(self) -> h11.Event | None:
        """Give the next event, None when the connection ended too early."""
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            try:
                piece = await self.read_some()
            except ConnectionResetError:
                return None
            if not piece and not self._ends_with_the_connection():
                return None
            self._parser.receive_data(piece)
        return event if isinstance(event, h11.Event) else None

    def _ends_with_the_connection(self) -> bool:
        """Whether closing is how this answer ends (RFC 9112 §6.3, rule 8)."""
        answer = self._answer
        framing = (b"content-length", b"transfer-encoding")
        return answer is not None and not any(answer.values(name) for name in framing)


def _parser_after(method: bytes) -> h11.Connection:
    """Make a parser that believes it has sent such a request, one that may be upgraded."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1024 * 1024)
    headers = [(b"Host", b"test"), (b"Connection", b"upgrade"), (b"Upgrade", b"any")]
    parser.send(h11.Request(method=method, target=b"/", headers=headers))
    parser.send(h11.EndOfMessage())
    return parser
