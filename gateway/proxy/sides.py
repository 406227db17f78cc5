"""What an Exchange sees of the world: four small Protocols.

An Exchange never touches a socket, a parser or the loop. Both faces implement ClientSide; the
connection and the pool implement the other side; tests play either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.core.fleet import Member
from gateway.core.message import AnswerHead, Fields

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange


class ClientSide(Protocol):
    """The client's connection, as far as one Exchange is concerned.

    After `send_end` or `abort` the Exchange says nothing more. What is told may be kept until
    `flush`, so that a head and its body leave in one write.
    """

    def send_interim(self, status: int, fields: Fields) -> None:
        """Relay an interim answer (RFC 9110 §15.2), where the client's protocol can."""
        ...

    def send_head(self, head: AnswerHead) -> None:
        """Send the head of the answer; framing is this side's business."""
        ...

    def send_body(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        ...

    def send_end(self, trailers: Fields) -> None:
        """End the answer; it is whole."""
        ...

    def abort(self) -> None:
        """Cut the connection in a way that the client cannot take for a whole answer."""
        ...

    def flush(self) -> None:
        """Let everything that was told so far leave."""
        ...

    def pause_reading(self) -> None:
        """Stop reading the request's body; what was read already may still be told."""
        ...

    def resume_reading(self) -> None:
        """Go on reading the request's body."""
        ...


class Connection(Protocol):
    """A connection to an instance that carries one Exchange at a time."""

    def begin(self, exchange: Exchange, request: bytes, *, to_head: bool) -> None:
        """Carry this Exchange from now on, and send the first bytes of its request."""
        ...

    def write(self, chunk: bytes) -> None:
        """Send more of the request."""
        ...

    def pause_reading(self) -> None:
        """Stop reading the answer."""
        ...

    def resume_reading(self) -> None:
        """Go on reading the answer."""
        ...

    def finish(self, *, is_reusable: bool) -> None:
        """Let the Exchange go after its answer; the connection decides whether it lives on."""
        ...

    def abort(self) -> None:
        """Let the Exchange go and close at once; nothing is told to it any more."""
        ...


class ConnectionPool(Protocol):
    """The connections to one instance."""

    def acquire(self, exchange: Exchange, now_s: float, *, is_fresh: bool) -> Connection | None:
        """Give an idle connection, or None and start one.

        A started one is told later by `upstream_ready` or `upstream_failed`, unless abandoned.
        `is_fresh` refuses connections that were used before.
        """
        ...

    def abandon(self, exchange: Exchange) -> None:
        """Forget that this Exchange waits for a connection."""
        ...

    def retire(self) -> None:
        """Close what is idle, and each other connection as soon as it has nothing in hand."""
        ...


class BreakerObserver(Protocol):
    """Whoever wants to know about Breakers. Must neither raise nor block."""

    def breaker_changed(self, service: str, member: Member[ConnectionPool], now_s: float) -> None:
        """Take note of a Breaker that opened or closed."""
        ...


class Observer(BreakerObserver, Protocol):
    """Whoever logs and counts. None of these may raise or block."""

    def settled(self, exchange: Exchange, now_s: float) -> None:
        """Take note of a finished Exchange; called once for each."""
        ...
