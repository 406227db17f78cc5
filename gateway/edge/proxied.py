"""A listener behind a proxy that passes bytes: each connection begins with the PROXY protocol.

That comes before everything else, before the TLS handshake too. So it is read from the bare socket,
exactly to its end, and only then the socket becomes a connection; that is what makes it work in
front of TLS on each event loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import structlog

from gateway.edge.proxy_protocol import MAX_SIZE_BYTES, ProxyProtocolError, Told, read_told

_log = structlog.get_logger()

_MOST_AT_ONCE = 128
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How connections are secured, None for plain ones; both times are seconds.

    `shutdown_timeout_s` is how long a client may take to confirm that the session is over.
    """

    context: ssl.SSLContext | None
    handshake_timeout_s: float | None
    shutdown_timeout_s: float | None


class ProxiedListener:
    """Accepts, reads what the proxy says, and makes the protocol of each connection.

    Stands where uvicorn expects a Server of asyncio. `spawn` runs what waits for a connection's
    first bytes, which is `head_timeout_s` at most. The listening socket belongs to somebody else.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[Told], asyncio.Protocol],
        *,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        security: Security,
        head_timeout_s: float,
    ) -> None:
        self._listener = listener
        self._make = make
        self._spawn = spawn
        self._security = security
        self._head_timeout_s = head_timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    def __repr__(self) -> str:
        return f"<ProxiedListener {len(self._waiting)} waiting>"

    def close(self) -> None:
        """Accept no more, and drop those that have not begun."""
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._listener)
        for task in self._waiting:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until those that were dropped are gone."""
        if self._waiting:
            await asyncio.wait(self._waiting)

    def _resume(self) -> None:
        self._pause = None
        self._listener.settimeout(0)
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # most likely there are no file descriptors left
                _log.warning("accept_failed", reason=str(error))
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_S, self._resume)
                return
            sock.settimeout(0)
            task = self._spawn(self._welcome(sock))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _welcome(self, sock: socket.socket) -> None:
        """Make a connection of a socket, or close it: whoever is there does not keep to the rules.

        Who it is does not matter here: what it says counts only if the edge trusts its address.
        """
        security = self._security
        is_connection = False
        try:
            async with asyncio.timeout(self._head_timeout_s):
                told = await _read_told(sock)
            await self._loop.connect_accepted_socket(
                lambda: self._make(told),
                sock,
                ssl=security.context,
                ssl_handshake_timeout=security.handshake_timeout_s,
                ssl_shutdown_timeout=security.shutdown_timeout_s,
            )
            is_connection = True
        except (OSError, ProxyProtocolError) as error:
            _log.debug("connection_refused", reason=str(error) or type(error).__name__)
        finally:
            if not is_connection:
                sock.close()


async def _read_told(sock: socket.socket) -> Told:
    """Read what the proxy says; what follows it stays in the socket."""
    loop = asyncio.get_running_loop()
    seen = b""
    is_readable = asyncio.Event()
    loop.add_reader(sock, is_readable.set)
    try:
        while True:
            await is_readable.wait()
            is_readable.clear()
            try:
                there = sock.recv(MAX_SIZE_BYTES, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if not there:
                raise ProxyProtocolError("it ended before it began")
            told = read_told(seen + there)
            if told is not None:
                sock.recv(told.size_bytes - len(seen))
                return told
            seen += sock.recv(len(there))
    finally:
        loop.remove_reader(sock)
