"""The connections to one instance: the idle ones last used first, and those being made.

The connection that was used last is given first, so that the others grow old and are closed. A
request that may not be sent twice gets a connection that was used a moment ago, or a new one: one
that has been idle for long may be closed at the other end, which only shows when it is too late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

from gateway.core.failure import Failure
from gateway.core.idle import IdleLimit
from gateway.core.model import Instance
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.exchange import Exchange
from gateway.proxy.tls import TlsClient, is_of_tls, reason_of
from gateway.proxy.upstream import UpstreamConnection

MAX_IDLE = 256
TRUSTED_IDLE_S = 1.0


class Spawn(Protocol):
    """Something that runs a coroutine as a task, and keeps it from being lost.

    What the coroutine raises is a mistake of ours: it is logged, and ends nothing else.
    """

    def __call__(self, work: Coroutine[None, None, None], *, name: str) -> asyncio.Task[None]:
        """Run it."""
        ...


class Pool:
    """The connections to one instance. Implements both ConnectionPool and Home.

    `tls` is None for plain connections.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        spawn: Spawn,
        clock: Callable[[], float],
        deadlines: Deadlines,
        tls: TlsClient | None = None,
    ) -> None:
        self._instance = instance
        self._tls = tls
        self._spawn = spawn
        self._clock = clock
        self._deadlines = deadlines
        self._idle: list[UpstreamConnection] = []
        self._connecting: dict[Exchange, asyncio.Task[None]] = {}
        self._is_retired = False
        self._limit = IdleLimit()

    def __repr__(self) -> str:
        idle, connecting = len(self._idle), len(self._connecting)
        return f"<Pool {self._instance.authority}, {idle} idle, {connecting} connecting>"

    def acquire(
        self, exchange: Exchange, now_s: float, *, is_fresh: bool
    ) -> UpstreamConnection | None:
        """Give an idle connection, or None and start one."""
        idle = self._idle
        while idle and not is_fresh:
            connection = idle.pop()
            if connection.is_closing:
                continue
            if exchange.is_repeatable or self._is_trusted(connection, now_s):
                return connection
            idle.append(connection)
            break
        name = f"connect:{self._instance.authority}"
        self._connecting[exchange] = self._spawn(self._connect_for(exchange), name=name)
        return None

    def _is_trusted(self, connection: UpstreamConnection, now_s: float) -> bool:
        """Tell whether a connection is good enough for a request that may not be sent twice."""
        usable_s = min(TRUSTED_IDLE_S, self._limit.usable_s(now_s))
        return now_s - connection.idle_since_s <= usable_s

    def abandon(self, exchange: Exchange) -> None:
        """Forget that this Exchange waits for a connection."""
        task = self._connecting.pop(exchange, None)
        if task is not None:
            task.cancel()

    def retire(self) -> None:
        """Close what is idle now, and everything else when it has nothing in hand any more."""
        self._is_retired = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def take_back(self, connection: UpstreamConnection, now_s: float) -> None:
        """Keep a connection for the next Exchange."""
        if connection.idle_timeout_s is not None:
            self._limit.said(connection.idle_timeout_s, now_s)
        if self._is_retired or connection.is_closing or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        self._idle.append(connection)
        self._deadlines.swept.add(self)

    def lost(self, connection: UpstreamConnection, *, idle_s: float | None) -> None:
        """Forget a connection that was closed while it was idle."""
        if idle_s is not None and connection in self._idle:
            self._idle.remove(connection)
            self._limit.seen(idle_s, self._clock())

    def sweep(self, now_s: float) -> None:
        """Close what the instance would close soon; the oldest come first."""
        idle = self._idle
        usable_s = self._limit.usable_s(now_s)
        while idle and now_s - idle[0].idle_since_s > usable_s:
            idle.pop(0).abort()
        if not idle:
            self._deadlines.swept.discard(self)

    async def _connect_for(self, exchange: Exchange) -> None:
        try:
            await self._connect(exchange)
        except Exception:  # a mistake of ours: the Exchange must not wait for its deadline
            exchange.break_down(self._clock())
            raise

    async def _connect(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        instance, tls = self._instance, self._tls
        try:
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self, self._clock),
                instance.host,
                instance.port,
                ssl=None if tls is None else tls.context,
                server_hostname=None if tls is None else tls.server_name,
            )
            if connection.is_closing:
                raise ConnectionError("closed at once")
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be a host name
            self._connecting.pop(exchange, None)
            failure, reason = Failure.CONNECT_FAILED, str(error)
            if tls is not None and is_of_tls(error):
                failure, reason = Failure.TLS_FAILED, reason_of(error)
            exchange.upstream_failed(failure, f"{instance.authority}: {reason}", self._clock())
            return
        self._connecting.pop(exchange, None)
        exchange.upstream_ready(connection, self._clock())
