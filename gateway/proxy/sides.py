"""What an Exchange sees of the world, and the world of it: a few small Protocols.

An Exchange never touches a socket, a parser or the loop. Both faces implement ClientSide; the
connection and the pool implement the other side; tests play either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.core.failure import Failure
from gateway.core.fleet import Member
from gateway.core.message import AnswerHead, Fields, Request

if TYPE_CHECKING:
    from gateway.proxy.ending import Ending
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.tunnel import Tunnel


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

    def send_answer(self, head: AnswerHead, body: bytes) -> None:
        """Send a whole answer of a length that its head says, and let it leave.

        It stands for `send_head`, `send_body`, `send_end` and `flush`: most answers are like this.
        """
        ...

    def abort(self) -> None:
        """Cut the connection in a way that the client cannot take for a whole answer."""
        ...

    def flush(self) -> None:
        """Let everything that was told so far leave."""
        ...

    def unsent_bytes(self) -> int | None:
        """Tell how much of what was flushed the client has not taken yet; None if nobody can."""
        ...

    def pause_reading(self) -> None:
        """Stop reading the request's body; what was read already may still be told."""
        ...

    def resume_reading(self) -> None:
        """Go on reading the request's body."""
        ...

    def hand_over(self, exchange: Exchange) -> None:
        """Go on with this Exchange in the place of the one that began; the request is the same."""
        ...

    def shutdown(self) -> None:
        """Take no more requests after this one, where that is not somebody else's business."""
        ...


class Carried(Protocol):
    """What a connection carries: an Exchange, or its Hedge.

    `anything_sent` says whether something of the request may have left.
    """

    anything_sent: bool

    @property
    def deadline_s(self) -> float:
        """Until when it waits (monotonic), inf for no limit."""
        ...

    @property
    def request(self) -> Request:
        """The request that it carries."""
        ...

    @property
    def client(self) -> ClientSide:
        """Who gets the answer."""
        ...

    @property
    def is_repeatable(self) -> bool:
        """Whether the request may be sent again after something was sent."""
        ...

    @property
    def tunnel(self) -> Tunnel:
        """What bytes pass through once the protocol has switched."""
        ...

    def upstream_ready(self, connection: Connection, now_s: float) -> None:
        """Hear that a connection stands."""
        ...

    def upstream_paused(self) -> None:
        """Hear that the instance takes no more for now."""
        ...

    def upstream_resumed(self, now_s: float) -> None:
        """Hear that the instance takes more again."""
        ...

    def upstream_interim(self, status: int, fields: Fields, now_s: float) -> None:
        """Take an interim answer."""
        ...

    def upstream_answer(self, head: AnswerHead, body: bytes, now_s: float) -> None:
        """Take an answer that has come whole."""
        ...

    def upstream_head(self, head: AnswerHead, now_s: float) -> None:
        """Take the head of the final answer."""
        ...

    def upstream_switched(self, head: AnswerHead, now_s: float) -> None:
        """Take a 101."""
        ...

    def upstream_body(self, chunk: bytes, now_s: float) -> None:
        """Take a piece of the answer's body."""
        ...

    def upstream_end(self, trailers: Fields, now_s: float) -> None:
        """Hear that the answer is whole."""
        ...

    def upstream_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        """Hear that the attempt failed; its connection is gone already."""
        ...

    def break_down(self, now_s: float) -> None:
        """End because of a mistake of ours."""
        ...


class Connection(Protocol):
    """A connection to an instance that carries one Exchange at a time."""

    def begin(self, exchange: Carried, request: bytes) -> None:
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

    def finish(self, now_s: float) -> None:
        """Let the Exchange go, told whole both ways; the connection decides whether it stays."""
        ...

    def leave(self) -> None:
        """Let the Exchange go after its answer, though not all of its request was sent; close."""
        ...

    def abort(self) -> None:
        """Let the Exchange go and close at once; nothing is told to it any more."""
        ...


class ConnectionPool(Protocol):
    """The connections to one instance."""

    def acquire(self, exchange: Carried, now_s: float) -> Connection | None:
        """Give an idle connection, or None and start one, as `open_for` does."""
        ...

    def open_for(self, exchange: Carried) -> None:
        """Start a connection: it is told later by `upstream_ready` or `upstream_failed`.

        Unless it is abandoned before that.
        """
        ...

    def abandon(self, exchange: Carried) -> None:
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

    def settled(self, exchange: Ending, now_s: float) -> None:
        """Take note of a finished Exchange; called once for each."""
        ...
