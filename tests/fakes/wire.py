"""A connection to an instance without a socket: bytes in, events out.

The rule: `Line` hands an UpstreamConnection exactly the reads that a test names, one call for each,
and closes only when told; what the connection tells its Exchange is recorded in order.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, cast

from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, Fields, Request
from gateway.proxy.outbox import Outbox
from gateway.proxy.tunnel import Tunnel
from gateway.proxy.upstream import UpstreamConnection
from gateway.runtime.backlog import TURN_S, Backlog
from gateway.runtime.pieces import Buffer
from gateway.runtime.unsent import MOST_UNSENT_BYTES
from tests.fakes.clock import FakeClock
from tests.fakes.outbox import at_once
from tests.fakes.sides import FakeClient

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

Event = tuple[object, ...]


class FakeTransport(asyncio.Transport):
    """Records what is written; `abort` is carried out when the test says `Line.close`.

    With a `socket` it has one that can be read when the connection is lost.
    """

    def __init__(self, *, is_tls: bool = False) -> None:
        super().__init__()
        self.socket: socket.socket | None = None
        self.is_tls = is_tls
        self.is_half_closed = False
        self.written = bytearray()
        self.is_read = True
        self.unsent_bytes = 0
        self.is_aborted = False
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_aborted, "a write behind an abort"
        assert not self.is_half_closed, "a write behind the end"
        self.written += data

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.socket if name == "socket" else default

    def is_closing(self) -> bool:
        return False  # so that a write behind an abort is seen

    def can_write_eof(self) -> bool:
        return not self.is_tls

    def write_eof(self) -> None:
        self.is_half_closed = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass  # a test hands over what it reads itself

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_closed = True


class RecordingExchange:
    """What an UpstreamConnection sees of an Exchange; pieces of a body are joined in `events`.

    It lets the connection go at the end of the answer, as an Exchange does whose request was whole.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.client = FakeClient()
        self.head: AnswerHead | None = None
        self.connection: UpstreamConnection
        self.mistakes: list[str] = []
        self.leaves_at_head = False
        self.anything_sent = True
        self.deadline_s = inf
        self.request = Request(b"GET", b"/", b"", b"", b"shop")
        self.tunnel = Tunnel(b"websocket")

    @property
    def is_over(self) -> bool:
        """Whether the last event was the last one that may be."""
        return bool(self.events) and self.events[-1][0] in {"end", "failed", "broke down"}

    @property
    def failure(self) -> tuple[Failure, str]:
        """How it failed, and the detail."""
        assert self.events[-1][0] == "failed", self.events
        return cast("tuple[Failure, str]", self.events[-1][1:])

    def upstream_interim(self, status: int, fields: Fields, now_s: float) -> None:
        self._note("interim", status, tuple(fields))

    def upstream_head(self, head: AnswerHead, now_s: float) -> None:
        self.head = head
        fields = tuple(one for one in head.fields if one[0].lower() != b"content-length")
        self._note("head", head.status, head.reason, fields, head.length)
        self._make_mistake("head")
        if self.leaves_at_head:
            self.connection.abort()

    def upstream_answer(self, head: AnswerHead, body: bytes, now_s: float) -> None:
        self.upstream_head(head, now_s)
        if not self.leaves_at_head:
            self.upstream_body(body, now_s)
            self.upstream_end([], now_s)
            self.client.flush()

    def upstream_switched(self, head: AnswerHead, now_s: float) -> None:
        self.head = head
        self._note("switched", head.status, tuple(head.fields))

    def upstream_body(self, chunk: bytes, now_s: float) -> None:
        assert chunk
        self._make_mistake("body")
        if self.events[-1][0] == "body":
            _, before = self.events.pop()
            chunk = cast("bytes", before) + chunk
        self._note("body", chunk)

    def upstream_end(self, trailers: Fields, now_s: float) -> None:
        self._make_mistake("end")
        self._note("end", tuple(trailers))
        self.connection.finish(now_s)

    def upstream_failed(self, failure: Failure, detail: str, now_s: float) -> None:
        self._make_mistake("failed")
        self._note("failed", failure, detail)

    def upstream_paused(self) -> None:
        self._note("paused")

    def upstream_resumed(self, now_s: float) -> None:
        self._note("resumed")

    def break_down(self, now_s: float) -> None:
        self._note("broke down")
        self.connection.abort()

    def _note(self, *event: object) -> None:
        assert not self.is_over, f"{event} after {self.events[-1]}"
        self.events.append(event)

    def _make_mistake(self, when: str) -> None:
        if when in self.mistakes:
            raise KeyError(f"a mistake at {when}")


class FakeHome:
    """Keeps count of the connections that came back or were lost."""

    def __init__(self) -> None:
        self.taken_back: list[float] = []
        self.lost_ones: list[float | None] = []
        self.told: list[float] = []
        self.unasked_at_s: list[float] = []

    def take_back(self, connection: UpstreamConnection) -> None:
        self.taken_back.append(connection.idle_since_s)

    def keeps_idle(self, for_s: float, now_s: float) -> None:
        self.told.append(for_s)

    def unasked(self, now_s: float) -> None:
        self.unasked_at_s.append(now_s)

    def lost(self, connection: UpstreamConnection, *, idle_s: float | None) -> None:
        self.lost_ones.append(idle_s)


class Line:
    """One UpstreamConnection between a home and a transport."""

    def __init__(self, *, is_tls: bool = False, outbox: Outbox | None = None) -> None:
        self.clock = FakeClock()
        self.home = FakeHome()
        self.transport = FakeTransport(is_tls=is_tls)
        self._turns: list[Callable[[], None]] = []
        self._work_clock = FakeClock()
        self._backlog = Backlog(self._work_clock, self._turns.append)
        self.connection = UpstreamConnection(
            self.home, self.clock, outbox or at_once(), self._backlog, Buffer()
        )
        self.connection.connection_made(self.transport)

    def begin(
        self,
        *,
        to_head: bool = False,
        mistakes: Iterable[str] = (),
        leaves_at_head: bool = False,
    ) -> RecordingExchange:
        """Send a request; with `mistakes` the Exchange raises at those events.

        With `leaves_at_head` it goes to another connection when the head of the answer is here.
        """
        exchange = RecordingExchange()
        exchange.leaves_at_head = leaves_at_head
        exchange.mistakes = list(mistakes)
        exchange.connection = self.connection
        request = b"HEAD / HTTP/1.1\r\n\r\n" if to_head else b"GET / HTTP/1.1\r\n\r\n"
        exchange.request.method = request.split()[0]
        self.connection.begin(cast("Exchange", exchange), request)
        return exchange

    def receive(self, *reads: bytes) -> None:
        """Let the instance's bytes arrive in these reads; none after the connection is closed.

        After each, the turns pass that the connection needs to look at all of it.
        """
        for read in reads:
            if not self.transport.is_aborted:
                self.connection.data_received(read)
                self.pass_turns()

    def chokes(self, unsent_bytes: int = 2 * MOST_UNSENT_BYTES) -> None:
        """Let the instance take nothing any more while so much is still to be sent."""
        self.transport.unsent_bytes = unsent_bytes
        self.connection.pause_writing()

    def takes_on(self) -> None:
        """Let the instance take all that was sent."""
        self.transport.unsent_bytes = 0
        self.connection.resume_writing()

    def use_up_turn(self) -> None:
        """Let somebody else's long reads take all the time that this turn of the loop has."""
        assert not self._backlog.is_over()
        self._work_clock.advance(TURN_S)

    def pass_turns(self, count: int | None = None) -> None:
        """Let so many turns of the loop pass; None for as many as anybody waits for."""
        while self._turns and count != 0:
            self._turns.pop(0)()
            count = None if count is None else count - 1

    def close(self, error: Exception | None = None) -> None:
        """Let the connection end."""
        if error is None:
            self.connection.eof_received()
        self.connection.connection_lost(error)


def answered(*reads: bytes, to_head: bool = False) -> tuple[Line, RecordingExchange]:
    """Send a request on a new connection and let it be answered by these reads."""
    line = Line()
    exchange = line.begin(to_head=to_head)
    line.receive(*reads)
    return line, exchange
