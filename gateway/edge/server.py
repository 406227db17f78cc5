"""Our own process: its listeners under uvicorn, signals, and the way out.

SIGTERM: not ready any more, and each response says `Connection: close`; `drain_delay` for those in
front to notice; no new connections, and the clients that are there are let go (`edge/draining.py`);
exit. SIGINT (Ctrl-C) does the same without the delay, and closes idle connections at once: whoever
types it waits for it. A second signal of either kind ends it now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal, cast

import structlog
import uvicorn

from gateway.edge.acceptor import Acceptor, Entrance, Preliminaries, Tls
from gateway.edge.asgi import AnswerBrokenOffError
from gateway.edge.draining import Drain, DrainTimes
from gateway.edge.fast import FastFace
from gateway.edge.places import Place
from gateway.edge.protocol import ClientConnection
from gateway.edge.proxy_protocol import Told
from gateway.edge.tls import without_odd_names
from gateway.runtime.backlog import Backlog
from gateway.runtime.pieces import Buffer

_log = structlog.get_logger()

_BACKLOG = 2048
_SHUTDOWN_TIMEOUT_S = 2.0
_NEW_FOR_S = 1.0
_SECOND = 2
STOPS = (signal.SIGTERM, signal.SIGINT)

AsgiApp = Callable[..., Any]
HttpProtocol = Callable[..., asyncio.Protocol] | Literal["httptools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the servers need to know. All times are seconds; `stops` are the signals that end it.

    `head_timeout_s` is how long a proxy may take to say whom it speaks for, `handshake_timeout_s`
    how long a client to agree on a TLS session.
    """

    keepalive_timeout_s: float
    head_timeout_s: float = 10.0
    handshake_timeout_s: float = 10.0
    drain_delay_s: float
    drain_idle_s: float
    drain_timeout_s: float
    stops: tuple[signal.Signals, ...] = STOPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An app and where it is served; `name` is what it is called in the log.

    `http` is what speaks HTTP with clients: the fast face, or uvicorn's own, which calls the app.
    `tls` is None for plain HTTP. `is_proxied` says that each connection begins with the PROXY
    protocol; only the fast face can know whom that names. `makes_room` says that a new connection
    over the limit takes the place of the one that can be spared most.
    """

    name: str
    app: AsgiApp
    listener: socket.socket
    http: HttpProtocol = "httptools"
    tls: ssl.SSLContext | None = None
    is_proxied: bool = False
    makes_room: bool = False


class ListenError(Exception):
    """An address that cannot be listened on; says which and why."""


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; raises ListenError. On `::` it takes clients over IPv4 as well."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_for_both = host == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=is_for_both
        )
    except OSError as error:
        # `create_server` adds the address to the reason; it is told once already.
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        raise ListenError(f"cannot listen on {host}:{port}: {reason}") from error
    # asyncio sets it only where the socket names its protocol, which this one does not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class SiteServer(uvicorn.Server):
    """A uvicorn server for one Site; it leaves the signals to us: there are two in this process.

    It takes the site's listener over.
    """

    def __init__(self, site: Site, options: ServeOptions) -> None:
        super().__init__(_config(site, options))
        self._site = site
        self._options = options
        self._acceptor: Acceptor | None = None
        self._is_left = asyncio.Event()
        self._hurry = asyncio.Event()
        self._waits_for_idle = True
        self._tasks = asyncio.TaskGroup()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def run_until_left(self) -> None:
        """Serve until `leave` is called and what is in hand is done, or its time is over."""
        async with self._tasks:
            await self.serve(sockets=[self._site.listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and tell where: port 0 is any free one."""
        del sockets
        await super().startup(sockets=[])  # it can neither bound a handshake nor read what is first
        self._acceptor = self._open()
        self.servers.append(cast("Any", self._acceptor))
        host, port = self._site.listener.getsockname()[:2]
        _log.info("listening", site=self._site.name, host=host, port=port)

    def _open(self) -> Acceptor:
        """Make the connections of the listener ours; gives what uvicorn closes in the end."""
        site, options = self._site, self._options
        return Acceptor(
            site.listener,
            self._connection,
            spawn=self._tasks.create_task,
            first=Preliminaries(
                header_timeout_s=options.head_timeout_s if site.is_proxied else None,
                tls=None if site.tls is None else self._tls(site.tls),
            ),
            entrance=self._entrance(),
        )

    def _tls(self, context: ssl.SSLContext) -> Tls:
        face = self._site.http
        engine = face.engine if isinstance(face, FastFace) else None
        return Tls(
            context=context,
            handshake_timeout_s=self._options.handshake_timeout_s,
            shutdown_timeout_s=_SHUTDOWN_TIMEOUT_S,
            buffer=engine.buffer if engine else Buffer(),
            backlog=engine.backlog if engine else Backlog(),
        )

    def _entrance(self) -> Entrance | None:
        face, port = self._site.http, int(self._site.listener.getsockname()[1])
        if not isinstance(face, FastFace):
            return None
        scheme = "http" if self._site.tls is None else "https"
        peers = face.peers
        return Entrance(
            places=face.places,
            peer_of=lambda address, told: peers.at(address, scheme, port, told),
            grace_s=face.options.grace_s,
            make_room=self._make_room if self._site.makes_room else None,
        )

    def _make_room(self) -> bool:
        """Close the connection that can be spared most; False where there is none at all."""
        now_s = asyncio.get_running_loop().time()
        clients = (one for one in self._clients() if one.holds_place)
        spared = min(clients, key=lambda one: _worth(one, now_s), default=None)
        if spared is not None:
            spared.leave_place()
        return spared is not None

    def _connection(self, told: Told | None, place: Place | None) -> asyncio.Protocol:
        face = self._site.http
        if isinstance(face, FastFace):
            return ClientConnection(face, self.server_state, told, place)
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )

    async def main_loop(self) -> None:
        """Wait to be told to leave; uvicorn's own looks for that ten times a second."""
        await self.on_tick(0)
        await self._is_left.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what waits in the backlog, then no more, and let all clients go."""
        if not isinstance(self._site.http, FastFace):
            await super().shutdown(sockets)
            return
        acceptor = self._acceptor
        assert acceptor is not None, "it was started before it is left"
        acceptor.close()
        self._site.listener.close()
        drain = Drain(
            DrainTimes(
                idle_s=self._options.drain_idle_s if self._waits_for_idle else 0.0,
                timeout_s=self._options.drain_timeout_s,
            ),
            connections=self._clients,
            beginning_count=lambda: acceptor.beginning_count,
            hurry=self._hurry,
        )
        await drain.wait()
        acceptor.drop_beginning()
        await acceptor.wait_closed()
        await drain.end()

    def _clients(self) -> list[ClientConnection]:
        connections: Iterable[object] = self.server_state.connections
        return [one for one in connections if isinstance(one, ClientConnection)]

    def finish(self) -> None:
        """Say `Connection: close` with each response in hand from now on."""
        for one in self._clients():
            one.finish()

    def leave(self, *, at_once: bool, waits_for_idle: bool = True) -> None:
        """Accept no more, and finish what is in hand, or drop it (`at_once`).

        `waits_for_idle` is whether connections that look idle may still ask for a while.
        """
        self.should_exit = True
        self._waits_for_idle = waits_for_idle
        self._is_left.set()
        if at_once:
            self.force_exit = True
            self._hurry.set()


def _worth(one: ClientConnection, now_s: float) -> tuple[int, float]:
    """Order connections: the longest idle, who waits for its client, who has asked most often.

    One that is new is not idle: its request may be on its way.
    """
    if one.idle_since_s <= now_s - _NEW_FOR_S:
        return 0, one.idle_since_s
    return (1, 0.0) if one.waits_for_client else (2, -one.request_count)


async def serve(  # noqa: PLR0913 -- they are all different things
    sites: Sequence[Site],
    *,
    admin: Site | None,
    until: Coroutine[Any, Any, None],
    on_drain: Callable[[], None],
    on_second: Callable[[], None],
    options: ServeOptions,
) -> None:
    """Serve until one of the signals `options.stops` comes, then drain all of `sites` together.

    Takes the sockets over.
    Clients of `sites` are accepted when `until` is over; before that they wait in the backlog: a
    moment later is better than an error. `admin` is there at once. `on_drain` is called as soon as
    the first signal comes: from then on we are not ready. `on_second` is called when the second one
    comes, between any two instructions: the loop may be what hangs.
    """
    fronts = [SiteServer(site, options) for site in sites]
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        opening = tasks.create_task(until, name="serve:opening")
        serving = [
            tasks.create_task(_serve_after(opening, front), name=f"serve:{site.name}")
            for front, site in zip(fronts, sites, strict=True)
        ]
        beside: SiteServer | None = None
        if admin is not None:
            beside = SiteServer(admin, options)
            tasks.create_task(beside.run_until_left(), name="serve:admin")
        with _signals_into(received, options.stops, on_second), without_odd_names():
            first = await received.get()
            on_drain()
            for front in fronts:
                front.finish()
            hurry = tasks.create_task(_hurry(received, fronts), name="serve:hurry")
            is_patient = first is not signal.SIGINT
            if is_patient and options.drain_delay_s:
                _log.info("drain_waiting", delay_s=options.drain_delay_s)
                await asyncio.wait((hurry,), timeout=options.drain_delay_s)
            idle_s = options.drain_idle_s if is_patient else 0.0
            _log.info("draining", idle_s=idle_s, timeout_s=options.drain_timeout_s)
            opening.cancel()
            for front in fronts:
                front.leave(at_once=hurry.done(), waits_for_idle=is_patient)
            await asyncio.wait(serving)
            hurry.cancel()
            if beside is not None:
                beside.leave(at_once=True)


async def _serve_after(opening: asyncio.Task[None], front: SiteServer) -> None:
    await asyncio.wait((opening,))
    await front.run_until_left()


async def _hurry(received: asyncio.Queue[signal.Signals], fronts: Sequence[SiteServer]) -> None:
    await received.get()
    _log.warning("drain_cut_short")
    for front in fronts:
        front.leave(at_once=True)


def _config(site: Site, options: ServeOptions) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").addFilter(_drop_told_already)
    return uvicorn.Config(
        site.app,
        http=cast("Any", site.http),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        # They are declared as whole seconds, but asyncio takes them as they are.
        timeout_keep_alive=cast("int", options.keepalive_timeout_s),
        timeout_graceful_shutdown=cast("int", options.drain_timeout_s),
    )


def _drop_told_already(record: logging.LogRecord) -> bool:
    """Keep a broken-off answer out of the log: its request line says it, without a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, AnswerBrokenOffError)


@contextlib.contextmanager
def _signals_into(
    received: asyncio.Queue[signal.Signals],
    numbers: Iterable[signal.Signals],
    on_second: Callable[[], None],
) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    count = 0

    def caught(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        loop.call_soon_threadsafe(received.put_nowait, signal.Signals(number))
        if count == _SECOND:
            on_second()

    before = {number: signal.signal(number, caught) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
