"""The sides of an Exchange as a test plays them: a client, pools, connections, an observer.

The rule: nothing happens of its own accord. A test says what each side does, and what the Exchange
says to a side is recorded there. What no Exchange may ever do (speak after the end, write to a
connection that it let go) fails at once, in whichever test it happens.
"""

from __future__ import annotations

from gateway.core.failure import Failure
from gateway.core.fleet import Member
from gateway.core.message import AnswerHead, Fields, lines_of
from gateway.core.model import Instance
from gateway.proxy.ending import Ending
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import Carried, ConnectionPool
from tests.fakes.clock import FakeClock


class FakeClient:
    """The client's side: `said` is what it was told, one word or pair for each message."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.head: AnswerHead | None = None
        self.body = bytearray()
        self.trailers: Fields = []
        self.interims: list[tuple[int, Fields]] = []
        self.is_paused = False
        self.unsent: int | None = None
        self.is_last = False
        self.flushes = 0

    def __repr__(self) -> str:
        return f"<FakeClient {' '.join(self.said)}>"

    @property
    def is_over(self) -> bool:
        """Whether the Exchange has said its last word."""
        return self.said[-1:] in (["end"], ["abort"])

    @property
    def reason(self) -> bytes | None:
        """The reason of an answer of the gateway's own, None if it is an instance's."""
        assert self.head is not None
        return dict(self.head.fields).get(b"X-Gateway-Reason")

    def send_interim(self, status: int, fields: Fields) -> None:
        assert self.head is None, "an interim answer after the final one"
        self._say(f"interim {status}")
        self.interims.append((status, fields))

    def send_head(self, head: AnswerHead) -> None:
        assert self.head is None, "a second head"
        self._say(f"head {head.status}")
        self.head = head

    def send_body(self, chunk: bytes) -> None:
        assert self.head is not None, "a body without a head"
        assert chunk, "an empty piece"
        self._say("body")
        self.body += chunk

    def send_end(self, trailers: Fields) -> None:
        assert self.head is not None, "an end without a head"
        self._say("end")
        self.trailers = trailers

    def send_answer(self, head: AnswerHead, body: bytes) -> None:
        assert head.has_body
        assert head.length == len(body)
        self.send_head(head)
        self.send_body(body)
        self.send_end([])
        self.flush()

    def abort(self) -> None:
        self._say("abort")

    def flush(self) -> None:
        self.flushes += 1

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def unsent_bytes(self) -> int | None:
        return self.unsent

    def hand_over(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def shutdown(self) -> None:
        self.is_last = True

    def _say(self, word: str) -> None:
        assert not self.is_over, f"{word!r} after {self.said[-1]!r}"
        self.said.append(word)


class FakeConnection:
    """A connection to an instance: `sent` is what the Exchange wrote, the methods play answers.

    `ending` is None while it carries the Exchange, then "reusable", "closed" or "lost". `takes` is
    False while it takes no more of the request; with `chokes` that is from its first write on.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.exchange: Carried | None = None
        self.sent = bytearray()
        self.is_paused = False
        self.ending: str | None = None
        self.takes = True
        self.chokes = False

    def __repr__(self) -> str:
        return f"<FakeConnection {self.ending or 'open'} {bytes(self.sent[:40])!r}>"

    # --- The Exchange tells ----------------------------------------------------------------------

    def begin(self, exchange: Carried, request: bytes) -> None:
        assert self.exchange is None, "a connection carries one Exchange"
        self.exchange = exchange
        self.write(request)

    def write(self, chunk: bytes) -> None:
        assert self.ending is None, "a write on a connection that was let go"
        self.sent += chunk
        if self.chokes and self.takes:
            self.pauses()

    def pause_reading(self) -> None:
        assert self.ending is None
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.ending is None
        self.is_paused = False

    def finish(self, now_s: float) -> None:
        assert self.takes, "unsent bytes on a connection for the next one"
        self._end("reusable")

    def leave(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("closed")

    # --- The test plays --------------------------------------------------------------------------

    def pauses(self) -> None:
        """Take no more of the request."""
        self.takes = False
        self._carried().upstream_paused()

    def resumes(self) -> None:
        """Take more of the request again."""
        self.takes, self.chokes = True, False
        self._carried().upstream_resumed(self._clock())

    def interim(self, status: int = 103) -> None:
        """Answer provisionally."""
        self._carried().upstream_interim(status, [(b"Link", b"</a.css>")], self._clock())

    def head(self, status: int = 200, *, has_date: bool = False) -> AnswerHead:
        """Answer with a head; a body may follow."""
        head = AnswerHead(status, b"", lines_of([(b"X-From", b"instance")]))
        head.has_date = has_date
        self._carried().upstream_head(head, self._clock())
        return head

    def body(self, chunk: bytes = b"body") -> None:
        """Send a piece of the answer's body."""
        self._carried().upstream_body(chunk, self._clock())

    def end(self, trailers: Fields | None = None) -> None:
        """End the answer."""
        self._carried().upstream_end(trailers or [], self._clock())

    def answer(self, status: int = 200, body: bytes = b"body") -> None:
        """Answer in full."""
        self.head(status)
        if self.ending is None:
            self.body(body)
            self.end()

    def answer_whole(self, status: int = 200, body: bytes = b"body") -> None:
        """Answer in full, and all of it in one piece."""
        head = AnswerHead(status, b"", lines_of([(b"X-From", b"instance")]))
        head.length = len(body)
        self._carried().upstream_answer(head, body, self._clock())

    def fail(self, failure: Failure = Failure.DISCONNECTED_EARLY, detail: str = "gone") -> None:
        """Fail, and be lost."""
        exchange = self._carried()
        self.ending = "lost"
        exchange.upstream_failed(failure, detail, self._clock())

    def _carried(self) -> Carried:
        assert self.exchange is not None
        assert self.ending is None, "the test plays a connection that was let go"
        return self.exchange

    def _end(self, ending: str) -> None:
        assert self.ending is None, f"{ending} after {self.ending}"
        self.ending = ending


class FakePool:
    """The connections to one instance: `warm` are idle ones, given at once; others wait for a test.

    `made` are all connections that it gave, in order.
    """

    def __init__(self, clock: FakeClock, instance: Instance) -> None:
        self._clock = clock
        self.instance = instance
        self.warm: list[FakeConnection] = []
        self.made: list[FakeConnection] = []
        self.waiting: list[Carried] = []
        self.asked_fresh: list[bool] = []
        self.is_retired = False

    def __repr__(self) -> str:
        return f"<FakePool {self.instance.key}, {len(self.waiting)} waiting, {self.made}>"

    def acquire(self, exchange: Carried, now_s: float) -> FakeConnection | None:
        self.asked_fresh.append(False)
        if self.warm:
            self.made.append(self.warm.pop())
            return self.made[-1]
        self.waiting.append(exchange)
        return None

    def open_for(self, exchange: Carried) -> None:
        self.asked_fresh.append(True)
        self.waiting.append(exchange)

    def abandon(self, exchange: Carried) -> None:
        self.waiting.remove(exchange)

    def retire(self) -> None:
        self.is_retired = True

    # --- The test plays --------------------------------------------------------------------------

    def warm_up(self) -> FakeConnection:
        """Put an idle connection in."""
        self.warm.append(FakeConnection(self._clock))
        return self.warm[-1]

    def connect(self, *, chokes: bool = False) -> FakeConnection:
        """Let the connection stand that the first Exchange waits for.

        One that `chokes` takes no more than what is written first.
        """
        connection = FakeConnection(self._clock)
        connection.chokes = chokes
        self.made.append(connection)
        self.waiting.pop(0).upstream_ready(connection, self._clock())
        return connection

    def refuse(self, failure: Failure = Failure.CONNECT_FAILED) -> None:
        """Let the connecting fail that the first Exchange waits for."""
        self.waiting.pop(0).upstream_failed(failure, "refused", self._clock())


class RecordingObserver:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.settled_ones: list[Ending] = []
        self.breaker_changes: list[str] = []

    def settled(self, exchange: Ending, now_s: float) -> None:
        assert exchange not in self.settled_ones, "settled twice"
        self.settled_ones.append(exchange)

    def breaker_changed(self, service: str, member: Member[ConnectionPool], now_s: float) -> None:
        state = member.breaker.state(now_s).value
        self.breaker_changes.append(f"{service} {member.instance.key} {state}")
