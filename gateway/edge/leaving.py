"""What a client's connection does when the gateway stops.

The state is that of the connection; these are the parts of it that only the drain calls.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING

from gateway.core.failure import Failure
from gateway.edge.closing import give_up
from gateway.edge.wire import Framing

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.edge.fast import FastFace
    from gateway.edge.places import Place
    from gateway.edge.reader import RequestReader
    from gateway.proxy.exchange import Exchange


class Leaving(asyncio.Protocol):
    """The part of a ClientConnection that ends it because the gateway stops."""

    deadline_s: float
    _clock: Callable[[], float]
    _exchange: Exchange | None
    _face: FastFace
    _framing: Framing
    _is_choked: bool
    _is_lingering: bool
    _keepalive_timeout_s: float
    _place: Place | None
    _reader: RequestReader
    _request_count: int
    _stays: bool
    _transport: asyncio.Transport

    @abstractmethod
    def flush(self) -> None:
        """Send what was written."""

    @abstractmethod
    def _linger(self) -> None:
        """Close in a way that lets the response arrive."""

    @abstractmethod
    def _refuse(self, failure: Failure, detail: str) -> None:
        """Answer with a failure, after which nothing more is read."""

    @property
    def is_tunnel(self) -> bool:
        """Whether it carries another protocol, such as WebSocket."""
        return self._framing is Framing.TUNNEL and self._exchange is not None

    @property
    def idle_since_s(self) -> float:
        """When its last response ended, or it was accepted (loop time); inf while it is in use.

        It follows from the deadline, so that nothing has to be noted for each request.
        """
        if self._exchange is not None or self._is_lingering or self._reader.begun:
            return inf
        if self._request_count:
            return self.deadline_s - self._keepalive_timeout_s
        return self.deadline_s - self._face.options.head_timeout_s

    @property
    def holds_place(self) -> bool:
        """Whether it counts as a connection: it is not being refused, and has not given way."""
        place = self._place
        return place is not None and place.is_counted

    @property
    def request_count(self) -> int:
        """How many requests it has carried."""
        return self._request_count

    @property
    def spare_since_s(self) -> float:
        """Since when it is idle (loop time), inf while it may not be closed for another one.

        One that has asked for nothing yet is left alone for a moment: that may be on its way.
        """
        since_s = self.idle_since_s
        if not self._request_count and self._clock() < since_s + self._face.options.grace_s:
            return inf
        return since_s

    @property
    def waits_for_client(self) -> bool:
        """Whether its client does not read its response, or has sent a part of a head only."""
        return self._is_choked or (self._exchange is None and bool(self._reader.begun))

    def finish(self) -> None:
        """Say `Connection: close` with the response in hand; an idle connection stays open."""
        if self._exchange is not None:
            self._stays = False

    def shutdown(self) -> None:
        """Take no more requests: close after the response in hand, or now."""
        self._stays = False
        if self._exchange is None and not self._is_lingering:
            self._linger()

    def leave_place(self) -> None:
        """Close it, and let another one have its place now."""
        assert self._place is not None, "it was made"
        self._place.give_way()

    def give_way(self, *, at_once: bool) -> None:
        """Close it: another one has its place now."""
        if self.idle_since_s < inf and not at_once:
            self.shutdown()
        else:
            self.drop()

    def cut(self) -> None:
        """End what is in hand: the time to finish it is over."""
        if self.is_tunnel:
            assert self._exchange is not None
            self._exchange.tunnel.close(self._exchange, self._clock())
        elif self._exchange is not None or (self._reader.begun and not self._is_lingering):
            self._refuse(Failure.DRAINING, "the gateway stops, and the time to finish is over")
            self.flush()
        else:
            self.shutdown()

    def drop(self) -> None:
        """Close at once, whatever has not been sent yet."""
        give_up(self._transport)
