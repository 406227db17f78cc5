"""Accepts the connections of one listening socket, and makes the protocol of each.

           accept                 PROXY header          TLS handshake
    backlog ─────▶ place taken ───────────────▶ ········ ────────────▶ protocol (it owns the place)
                     │ over a limit                │ not in time, not valid
                     ▼                             ▼
                  503 where that is cheap        closed, place left
                  (plain), else closed

A client that has left again gets no handshake. Handshakes have places of their own, shared fairly
by address (the one that the PROXY header names): one address cannot keep the others waiting, and
what they hold has a bound.

It does so itself, instead of `loop.create_server`, because only then a connection can be counted
and refused before the handshake, what waits in the backlog can be taken before the socket is
closed, and a lack of file descriptors is not the end of the listener (uvloop closes it).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from math import inf

import structlog

from gateway.core.fair import FairPlaces
from gateway.core.message import Peer
from gateway.edge.places import Place, Places
from gateway.edge.proxied import read_header
from gateway.edge.proxy_protocol import ProxyProtocolError, Told
from gateway.runtime.backlog import Backlog
from gateway.runtime.departed import has_departed
from gateway.runtime.pieces import Buffer
from gateway.runtime.secured import SecuredConnection

_log = structlog.get_logger()

# Connections that are accepted in one turn of the loop; others have to get their turn.
_MOST_AT_ONCE = 64
# The longest backlog that is emptied before the socket is closed.
_MOST_AT_CLOSE = 16 * 1024
_PAUSE_S = 0.5
# Handshakes at once; each holds some 60 KB, and takes a core a millisecond or two.
MOST_HANDSHAKES = 1024

MakeProtocol = Callable[[Told | None, Place | None], asyncio.Protocol]
Spawn = Callable[[Coroutine[None, None, bool]], asyncio.Task[bool]]
PeerOf = Callable[[str, Told | None], Peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS with the clients of one listener. All times are seconds.

    `shutdown_timeout_s` is how long a client may take to confirm the end of the session. `buffer`
    and `backlog` are those of the loop.
    """

    context: ssl.SSLContext
    handshake_timeout_s: float
    shutdown_timeout_s: float
    buffer: Buffer
    backlog: Backlog


@dataclass(frozen=True, slots=True, kw_only=True)
class Preliminaries:
    """What comes before HTTP on a connection.

    `header_timeout_s` is how long the PROXY header may take (seconds), None where there is none;
    `tls` is None for plain connections.
    """

    header_timeout_s: float | None = None
    tls: Tls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """Where connections take their places; `peer_of` tells for whom one is counted.

    It gets the address of the socket, and what the PROXY protocol says once that is known. What has
    no protocol yet gives way after `grace_s` (seconds) when all places are taken. `make_room` ends
    one that is in use, where nobody is idle; None where that is not done.
    """

    places: Places
    peer_of: PeerOf
    grace_s: float = inf
    make_room: Callable[[], bool] | None = None

    def enter(self, address: str) -> Place:
        """Take a place for a new connection from this address."""
        peer = self.peer_of(address, None)
        place = self.places.enter(peer)
        if place.refusal is not None and self.make_room is not None and self.make_room():
            place.leave()
            place = self.places.enter(peer)
        return place


class _Beginning:
    """What holds the place of a connection that has no protocol yet."""

    def __init__(
        self, task: asyncio.Task[bool], clock: Callable[[], float], *, grace_s: float
    ) -> None:
        self._task = task
        self._clock = clock
        self._grace_s = grace_s
        self._since_s = clock()

    @property
    def spare_since_s(self) -> float:
        """Since when it has been accepted (loop time), inf until it has had a moment."""
        return self._since_s if self._clock() >= self._since_s + self._grace_s else inf

    def give_way(self, *, at_once: bool) -> None:
        """Close it."""
        del at_once  # there is nobody who could be told yet
        self._task.cancel()


class Acceptor:
    """Stands where uvicorn expects a Server of asyncio.

    `spawn` runs what happens before a connection has its protocol. `entrance` is None where
    connections are not limited. The listening socket belongs to the caller.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: MakeProtocol,
        *,
        spawn: Spawn,
        first: Preliminaries,
        entrance: Entrance | None,
    ) -> None:
        self._listener = listener
        self._make = make
        self._spawn = spawn
        self._first = first
        self._entrance = entrance
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[bool]] = set()
        self._handshakes: FairPlaces[asyncio.Task[object]] = FairPlaces(MOST_HANDSHAKES)
        self._pause: asyncio.TimerHandle | None = None
        self._is_failing = False
        self._is_closed = False
        self._resume()

    def __repr__(self) -> str:
        return f"<Acceptor {len(self._beginning)} beginning>"

    @property
    def beginning_count(self) -> int:
        """How many accepted connections have no protocol yet."""
        return len(self._beginning)

    def close(self) -> None:
        """Accept what waits in the backlog, then no more. Further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        # A connection that the kernel has accepted is reset when the listening socket is closed.
        self._accept_up_to(_MOST_AT_CLOSE)

    def drop_beginning(self) -> None:
        """Close the connections that have no protocol yet."""
        for task in self._beginning:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until each accepted connection has its protocol or is closed."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    def _resume(self) -> None:
        self._pause = None
        self._listener.settimeout(0)
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        if not self._accept_up_to(_MOST_AT_ONCE):
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(_PAUSE_S, self._resume)

    def _accept_up_to(self, count: int) -> bool:
        """Accept what is there; return False where the system refuses to give any more."""
        for _ in range(count):
            try:
                sock, name = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return True
            except ConnectionError:
                continue  # its client left already
            except OSError as error:
                self._tell_failure(error)
                return False
            if self._is_failing:
                self._is_failing = False
                _log.info("accept_recovered")
            self._welcome(sock, name[0] if isinstance(name, tuple) else "")
        return True

    def _tell_failure(self, error: OSError) -> None:
        """Log the first failure of a row: most likely there are no file descriptors left."""
        if not self._is_failing:
            self._is_failing = True
            _log.warning("accept_failed", reason=str(error), retried_every_s=_PAUSE_S)

    def _welcome(self, sock: socket.socket, address: str) -> None:
        if self._first.tls is not None and has_departed(sock):
            sock.close()
            return
        place = None
        if self._entrance is not None:
            place = self._entrance.enter(address)
            if place.refusal is not None and self._entrance.make_room and self._beginning:
                # Only what has its protocol can give way, and these have theirs in a moment.
                place.leave()
                self._loop.call_soon(self._welcome, sock, address)
                return
            if not self._may_go_on(place, is_early=True):
                _close(sock, place)
                return
        sock.settimeout(0)
        task = self._spawn(self._begin(sock, address, place))
        if place is not None and self._entrance is not None:
            place.holder = _Beginning(task, self._loop.time, grace_s=self._entrance.grace_s)
        self._beginning.add(task)
        task.add_done_callback(partial(self._begun, sock, place))

    def _may_go_on(self, place: Place, *, is_early: bool = False) -> bool:
        """Tell whether a connection is within the limits, or cheap enough to be refused in words.

        `is_early` is before the PROXY header was read.
        """
        if place.refusal is None:
            return True
        assert self._entrance is not None
        places = self._entrance.places
        places.log_refusal(place.refusal, self._loop.time())
        has_more_to_do = is_early and self._first.header_timeout_s is not None
        is_cheap = self._first.tls is None and not has_more_to_do
        return is_cheap and not places.is_crowded

    async def _begin(self, sock: socket.socket, address: str, place: Place | None) -> bool:
        """Make a connection of a socket; False where the client does not keep to the rules."""
        first = self._first
        try:
            told = await self._header_of(sock, address, place)
            if first.tls is None:
                make = partial(self._make, told, place)
                await self._loop.connect_accepted_socket(make, sock)
            else:
                peer = self._address_of(address, told)
                await self._secure(self._make(told, place), sock, first.tls, peer)
        except (OSError, ProxyProtocolError) as error:
            _log.debug("connection_refused", reason=str(error) or type(error).__name__)
            return False
        except Exception:  # noqa: BLE001 -- a mistake of ours ends this connection alone
            _log.exception("task_failed", task="accept")
            return False
        return True

    def _address_of(self, address: str, told: Told | None) -> bytes:
        """Tell for whose address a connection takes its turns."""
        if self._entrance is None:
            return address.encode("latin-1")
        return self._entrance.peer_of(address, told).address

    async def _secure(
        self, protocol: asyncio.Protocol, sock: socket.socket, tls: Tls, peer: bytes
    ) -> None:
        """Shake hands; raises OSError where the client does not, or not in time."""
        secured = SecuredConnection(
            protocol,
            tls.context,
            buffer=tls.buffer,
            backlog=tls.backlog,
            peer=peer,
            server_name=None,
            shutdown_timeout_s=tls.shutdown_timeout_s,
        )
        task = asyncio.current_task()
        assert task is not None, "it runs in one"
        self._enter_handshake(task, peer)
        try:
            await self._loop.connect_accepted_socket(lambda: secured, sock)
            try:
                async with asyncio.timeout(tls.handshake_timeout_s):
                    await secured.ready
            except BaseException:
                secured.abort()
                raise
        finally:
            self._handshakes.discard(task, peer)

    def _enter_handshake(self, task: asyncio.Task[object], peer: bytes) -> None:
        """Take a place for a handshake, from whose address has most if there is none left.

        Raises ConnectionRefusedError where that is this one's own address.
        """
        left = self._handshakes.add(task, peer)
        if left is task:
            raise ConnectionRefusedError("there are too many handshakes of this address")
        if left is not None:
            left.cancel()

    def _begun(self, sock: socket.socket, place: Place | None, task: asyncio.Task[bool]) -> None:
        """Close what did not become a connection, also when its task never came to its start."""
        self._beginning.discard(task)
        if task.cancelled() or task.exception() is not None or not task.result():
            _close(sock, place)

    async def _header_of(
        self, sock: socket.socket, address: str, place: Place | None
    ) -> Told | None:
        """Read the PROXY header, if there is one, and count the connection for whom it names."""
        if self._first.header_timeout_s is None:
            return None
        async with asyncio.timeout(self._first.header_timeout_s):
            told = await read_header(sock)
        if place is not None and self._entrance is not None:
            place.name(self._entrance.peer_of(address, told))
            if not self._may_go_on(place):
                raise ConnectionRefusedError(place.refusal)
        return told


def _close(sock: socket.socket, place: Place | None) -> None:
    sock.close()
    if place is not None:
        place.leave()
