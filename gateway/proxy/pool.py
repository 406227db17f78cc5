"""The connections to one instance: the idle ones last used first, and those being made.

The connection that was used last is given first, so that the others grow old and are closed. A
request that may not be sent twice, or whose body cannot be, gets a connection that was used just
now, or a new one: one that has been idle for long may be closed at the other end, which only shows
when it is too late.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Coroutine
from math import inf
from typing import Protocol

import structlog

from gateway.core.failure import Failure
from gateway.core.idle import ALWAYS_USABLE_S, IdleLimit
from gateway.core.model import Instance
from gateway.names import OUR_OWN_LACK, GroupOfNames, NameLateError, Names, connect_first
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.outbox import Outbox
from gateway.proxy.sides import Carried
from gateway.proxy.tls import TlsClient, is_of_tls, reason_of
from gateway.proxy.upstream import UpstreamConnection
from gateway.runtime.backlog import Backlog
from gateway.runtime.pieces import Buffer
from gateway.runtime.secured import SecuredConnection

MAX_IDLE = 256
TRUSTED_IDLE_S = 1.0
_SHUTDOWN_TIMEOUT_S = 2.0
_LOOKUP_SHARE = 0.5
UNASKED_REST_S = 60.0

_log = structlog.get_logger()


class Spawn(Protocol):
    """Something that runs a coroutine as a task, and keeps it from being lost.

    What the coroutine raises is a mistake of ours: it is logged, and ends nothing else.
    """

    def __call__(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        """Run it."""
        ...


class Pool:
    """The connections to one instance. Implements both ConnectionPool and Home.

    `tls` is None for plain connections. `max_connections` is how many there may be, None for any
    number; whoever asks for one has seen to it that no more are busy, so it only bounds idle ones.
    `names` looks up names.
    """

    def __init__(  # noqa: PLR0913 -- they are all different things
        self,
        instance: Instance,
        *,
        spawn: Spawn,
        clock: Callable[[], float],
        deadlines: Deadlines,
        outbox: Outbox,
        backlog: Backlog,
        buffer: Buffer,
        tls: TlsClient | None = None,
        names: GroupOfNames | None = None,
    ) -> None:
        self._instance = instance
        self._names = names or Names().of("")
        self._tls = tls
        self._spawn = spawn
        self._clock = clock
        self._deadlines = deadlines
        self._outbox = outbox
        self._backlog = backlog
        self._buffer = buffer
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self.max_connections: int | None = None
        self._connecting: dict[Carried, asyncio.Task[None]] = {}
        self._is_retired = False
        self._keeps_idle = True
        self._keeps_again_at_s = 0.0
        self._made_with: object = None
        self._limit = IdleLimit()

    def __repr__(self) -> str:
        idle, connecting = len(self._idle), len(self._connecting)
        return f"<Pool {self._instance.authority}, {idle} idle, {connecting} connecting>"

    def acquire(self, exchange: Carried, now_s: float) -> UpstreamConnection | None:
        """Give an idle connection, or None and start one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_closing:
                continue
            if (
                now_s - connection.idle_since_s <= ALWAYS_USABLE_S
                or exchange.is_repeatable
                or self._is_trusted(connection, now_s)
            ):
                return connection
            idle.append(connection)
            break
        self.open_for(exchange)
        return None

    def open_for(self, exchange: Carried) -> None:
        """Start a connection."""
        if self.max_connections is not None:
            self._make_room(self.max_connections)
        name = f"connect:{self._instance.authority}"
        self._connecting[exchange] = self._spawn(self._connect_for(exchange), name=name)

    def _make_room(self, limit: int) -> None:
        """Close idle connections, the oldest first, so that there may be one more."""
        surplus = len(self._open) + len(self._connecting) + 1 - limit
        for connection in [one for one in self._idle if not one.is_closing][: max(surplus, 0)]:
            self._idle.remove(connection)  # or its end would be taken for the instance's doing
            connection.abort()
            self._open.discard(connection)

    def _is_trusted(self, connection: UpstreamConnection, now_s: float) -> bool:
        """Tell whether a connection is good enough for a request that may not be sent twice."""
        usable_s = min(TRUSTED_IDLE_S, self._limit.usable_s(now_s))
        return now_s - connection.idle_since_s <= usable_s

    def abandon(self, exchange: Carried) -> None:
        """Forget that this Exchange waits for a connection."""
        task = self._connecting.pop(exchange, None)
        if task is not None:
            task.cancel()

    def retire(self) -> None:
        """Close what is idle now, and everything else when it has nothing in hand any more."""
        self._is_retired, self._keeps_idle = True, False
        self._close_idle()

    def unasked(self, now_s: float) -> None:
        """Use each connection for one request only, for a while.

        What comes together with the next request would be taken for its response.
        """
        if self._keeps_idle:
            _log.warning(
                "unasked_response", instance=self._instance.authority, for_s=UNASKED_REST_S
            )
        self._keeps_idle = False
        self._keeps_again_at_s = now_s + UNASKED_REST_S
        self._deadlines.swept.add(self)
        self._close_idle()

    def _make_with(self, context: ssl.SSLContext) -> None:
        """Let no connection that was made with another context carry a further request."""
        if context is not self._made_with:
            self._made_with = context
            self._close_idle()

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def take_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next Exchange."""
        idle = self._idle
        if (
            not self._keeps_idle
            or connection.is_closing
            or len(idle) >= MAX_IDLE
            or connection.made_with is not self._made_with
        ):
            connection.abort()
            return
        if not idle:
            self._deadlines.swept.add(self)
        idle.append(connection)

    def keeps_idle(self, for_s: float, now_s: float) -> None:
        """Hear from the instance for how long it keeps idle connections."""
        self._limit.said(for_s, now_s)

    def lost(self, connection: UpstreamConnection, *, idle_s: float | None) -> None:
        """Forget a connection that was closed while it was idle."""
        self._open.discard(connection)
        if idle_s is not None and connection in self._idle:
            self._idle.remove(connection)
            self._limit.seen(idle_s, self._clock())

    def sweep(self, now_s: float) -> None:
        """Close what the instance would close soon; the oldest come first."""
        if self._tls is not None and self._tls.context is not self._made_with:
            self._make_with(self._tls.context)
        idle = self._idle
        usable_s = self._limit.usable_s(now_s)
        while idle and now_s - idle[0].idle_since_s > usable_s:
            idle.pop(0).abort()
        if now_s >= self._keeps_again_at_s:
            self._keeps_idle = not self._is_retired
            if not idle:
                self._deadlines.swept.discard(self)

    async def _connect_for(self, exchange: Carried) -> None:
        try:
            await self._connect(exchange)
        except Exception:  # a mistake of ours: the Exchange must not wait for its deadline
            exchange.break_down(self._clock())
            raise

    async def _connect(self, exchange: Carried) -> None:
        instance, tls = self._instance, self._tls
        try:
            addresses = await self._names.addresses(
                instance.host, within_s=self._lookup_within_s(exchange)
            )
            connection = await connect_first(addresses, self._connect_to, _abort)
            if connection.is_closing:
                raise ConnectionError("closed at once")
        except NameLateError as error:
            self._connecting.pop(exchange, None)
            detail = f"{instance.authority}: {error}"
            exchange.upstream_failed(Failure.DNS_TIMEOUT, detail, self._clock())
            return
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be a host name
            self._connecting.pop(exchange, None)
            failure, reason = Failure.CONNECT_FAILED, str(error)
            if tls is not None and is_of_tls(error):
                failure, reason = Failure.TLS_FAILED, reason_of(error)
            elif isinstance(error, OSError) and error.errno in OUR_OWN_LACK:
                failure = Failure.OVER_CAPACITY  # no instance is to blame for that
            elif isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
                failure = Failure.NO_LOCAL_PORT  # nor for that, and another one may have some left
            exchange.upstream_failed(failure, f"{instance.authority}: {reason}", self._clock())
            return
        self._connecting.pop(exchange, None)
        self._open.add(connection)
        exchange.upstream_ready(connection, self._clock())

    def _lookup_within_s(self, exchange: Carried) -> float | None:
        """Tell how long a name may be looked up: so that its host has half of the time at least."""
        left_s = exchange.deadline_s - self._clock()
        return None if left_s == inf else max(0.0, left_s * _LOOKUP_SHARE)

    async def _connect_to(self, address: str) -> UpstreamConnection:
        connection = UpstreamConnection(
            self, self._clock, self._outbox, self._backlog, self._buffer
        )
        if self._tls is not None:
            await self._secure(connection, self._tls, address)
            return connection
        await asyncio.get_running_loop().create_connection(
            lambda: connection, address, self._instance.port
        )
        return connection

    async def _secure(self, connection: UpstreamConnection, tls: TlsClient, address: str) -> None:
        """Connect over TLS."""
        connection.made_with = tls.context
        self._make_with(tls.context)
        secured = SecuredConnection(
            connection,
            tls.context,
            buffer=self._buffer,
            backlog=self._backlog,
            peer=self,
            server_name=tls.server_name,
            shutdown_timeout_s=_SHUTDOWN_TIMEOUT_S,
        )
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: secured, address, self._instance.port
            )
            await secured.ready
        except BaseException:
            secured.abort()
            raise


def _abort(connection: UpstreamConnection) -> None:
    connection.abort()
