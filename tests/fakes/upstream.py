"""A scripted upstream: a real TCP listener that plays what a test tells it, byte for byte.

The rule: it does nothing of its own accord. Three hooks say when, actions (`scenes`) say what:

    async with ScriptedUpstream() as up:
        up.on_request(close(), reply(OK))

Here the first request finds its connection closed and every later one is answered. `on_connect`
plays before anything is read, `on_head` when a head is here and its body is not yet read,
`on_request` when the request is whole. The nth arrival plays the nth action, the last one repeats.

It guarantees: requests are parsed by h11, which shares no code with the gateway, and bytes that h11
refuses fail the test when the upstream is left; nothing is read ahead of the script; nothing
outlives the `async with`.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import h11

from tests.fakes.peer import Action, Ended, Peer, ReceivedRequest
from tests.fakes.scenes import play, respond
from tests.fakes.waiting import PATIENCE_S


class ScriptedUpstream:
    """A listener on 127.0.0.1 that plays scripts; see the module for how to write them.

    The port stays its own while it refuses connections, so `listen` brings it back at the same
    address. `receive_buffer_bytes` makes the kernel's buffer small, for back-pressure. Leaving it
    raises AssertionError when a peer sent what h11 refuses; an exception in a script ends the test.
    """

    def __init__(self, *, receive_buffer_bytes: int | None = None) -> None:
        self.connections: list[Peer] = []
        self.requests: list[ReceivedRequest] = []
        self.violations: list[str] = []
        self._receive_buffer_bytes = receive_buffer_bytes
        self._on_connect = _Scenes(play())
        self._on_head = _Scenes(play())
        self._on_request = _Scenes(respond())
        self._changed = asyncio.Event()
        self._claim = _bind(0)
        self._tasks = asyncio.TaskGroup()
        self._serving: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<ScriptedUpstream {self.authority} {self.connections} requests={self.requests}>"

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A task group would wrap the test's own exception in a group; only the cancelling that
        # a failed script caused is its affair.
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            await self.refuse()
            await self._leave()
            await self._tasks.__aexit__(*(kind, error, trace) if cancelled else (None, None, None))
        finally:
            self._claim.close()
        if kind is None and self.violations:
            raise AssertionError(f"the upstream was sent broken HTTP: {self.violations}")

    @property
    def port(self) -> int:
        """The port, the same for as long as this object lives."""
        port: int = self._claim.getsockname()[1]
        return port

    @property
    def authority(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{self.authority}"

    def on_connect(self, *scenes: Action) -> None:
        """Play at each new connection, before anything is read."""
        self._on_connect = _Scenes(*scenes)

    def on_head(self, *scenes: Action) -> None:
        """Play when a request's head is here, before its body is read."""
        self._on_head = _Scenes(*scenes)

    def on_request(self, *scenes: Action) -> None:
        """Play when a request is whole; answers 200 "ok" until told otherwise."""
        self._on_request = _Scenes(*scenes)

    async def wait_until(self, is_true: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait until `is_true` holds; asked again whenever something arrived or ended."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not come true within {timeout_s} s: {self!r}") from None

    def listen(self) -> None:
        """Take connections, again after `refuse`."""
        self._listener = listener = _bind(self.port)
        if self._receive_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        listener.listen()
        # Not `sock_accept`: what that one has accepted is lost when it is cancelled at that moment.
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def refuse(self) -> None:
        """Stop listening: new connections are refused, those that stand go on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def drop(self) -> None:
        """Break off every connection with RST, as when the process is killed."""
        for peer in self.connections:
            if peer.is_open():
                peer.reset_at_close()
        await self._leave()

    async def _leave(self) -> None:
        for task in tuple(self._serving):
            await _cancelled(task)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # whoever knocked has left
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(sock, number=len(self.connections), changed=self._changed.set)
        self.connections.append(peer)
        task = self._tasks.create_task(self._serve(peer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: peer.close())  # it may be cancelled before its first step

    async def _serve(self, peer: Peer) -> None:
        try:
            await self._converse(peer)
        except ConnectionError:
            peer.close(Ended.RESET_BY_PEER)
        except h11.RemoteProtocolError as error:
            self.violations.append(f"{error}: {bytes(peer.received)!r}")
        finally:
            peer.close()

    async def _converse(self, peer: Peer) -> None:
        self._changed.set()
        await self._on_connect.next()(peer)
        while peer.is_open() and (request := await peer.read_head()):
            self.requests.append(request)
            await self._on_head.next()(peer)
            if peer.is_open() and await peer.read_body():
                await self._on_request.next()(peer)


class _Scenes:
    """The actions of one hook: each plays once, the last one for ever."""

    def __init__(self, *scenes: Action) -> None:
        self._scenes = list(scenes)

    def next(self) -> Action:
        return self._scenes.pop(0) if len(self._scenes) > 1 else self._scenes[0]


@contextlib.asynccontextmanager
async def blackhole() -> AsyncIterator[int]:
    """Give a port of 127.0.0.1 where connecting hangs: its queue is full and nobody accepts.

    Linux drops the SYN when the queue of a listener is full (tcp_abort_on_overflow is 0).
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bind(0))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
            # Not through the loop: one that is late would take what has long been connected for
            # what is not. The kernel connects over loopback before it returns.
            if not select.select([], [filler], [], 0.05)[1]:
                break
        else:
            raise AssertionError("the queue of the listener does not fill up")
        yield listener.getsockname()[1]


def _bind(port: int) -> socket.socket:
    """Bind without listening; SO_REUSEPORT lets claim and listener share the port."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])
