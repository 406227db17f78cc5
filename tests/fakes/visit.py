"""A client's connection to the fast face without a socket: bytes in, bytes out, time as numbers.

The rule: the instances are played (`tests.fakes.engine`), the face is the real one. What the client
sends while it is not read waits, as it would in the kernel.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import h11

from gateway.edge.face import FaceOptions
from gateway.edge.fast import FastFace
from gateway.edge.peers import Peers
from gateway.edge.protocol import ClientConnection
from gateway.runtime.unsent import MOST_UNSENT_BYTES
from tests.fakes.client import Answer
from tests.fakes.engine import Stage
from tests.fakes.sides import FakeConnection


@dataclass
class SharedState:
    """What uvicorn shares among connections."""

    total_requests: int = 0
    connections: set[Any] = field(default_factory=set)


class FakeSocket:
    """Records the options that are set."""

    def __init__(self) -> None:
        self.options: list[tuple[int, int, bytes]] = []

    def fileno(self) -> int:
        return -1  # there is nothing that the system could tell of it

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.options.append((level, option, value))


class FakeClientTransport(asyncio.Transport):
    """What the face does to a connection; `unsent_bytes` is what the client has not taken yet."""

    def __init__(self, *, peername: object, is_tls: bool) -> None:
        self.sock = FakeSocket()
        facts = {"peername": peername, "socket": self.sock, "ssl_object": is_tls or None}
        super().__init__(facts)
        self.is_tls = is_tls
        self.written = bytearray()
        self.writes: list[int] = []
        self.unsent_bytes = 0
        self.is_read = True
        self.is_half_closed = False
        self.ending = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data, "an empty write"
        if not self.ending:
            assert not self.is_half_closed, "a write behind the end"
            self.written += data
            self.writes.append(len(data))

    def can_write_eof(self) -> bool:
        return not self.is_tls

    def write_eof(self) -> None:
        assert not self.is_tls
        self.is_half_closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass  # a test hands over what it reads itself

    def pause_reading(self) -> None:
        assert self.is_read, "paused twice"
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return bool(self.ending)

    def close(self) -> None:
        self.ending = self.ending or "closed"

    def abort(self) -> None:
        self.ending = "aborted"


class Visit:
    """One client's connection to a face in front of a Stage.

    The Stage has one warm connection to "a", for one request; a test warms up those for others.
    """

    def __init__(
        self,
        stage: Stage | None = None,
        *,
        options: FaceOptions | None = None,
        beside: Visit | None = None,
        peername: object = ("192.0.2.1", 4711),
        is_tls: bool = False,
    ) -> None:
        self.stage: Stage = beside.stage if beside else stage or Stage()
        if beside is None:
            self.stage.pools["a"].warm_up()
        face = FastFace(self.stage.engine, Peers(()), options or FaceOptions())
        self.face: FastFace = beside.face if beside else face
        self.state = SharedState()  # as at a listener of its own
        self.transport = FakeClientTransport(peername=peername, is_tls=is_tls)
        self.connection: ClientConnection = self.face(None, self.state, None)
        self._waiting: deque[bytes] = deque()
        self._is_lost = False
        self.connection.connection_made(self.transport)

    @property
    def instance(self) -> FakeConnection:
        """The connection to the instance that carries the newest request."""
        return self.stage.pools["a"].made[-1]

    def send(self, *pieces: bytes) -> None:
        """Let the client send these; what is not read waits until `send` is called again."""
        self._waiting.extend(pieces)
        while self._waiting and self.transport.is_read and not self.transport.ending:
            self.connection.data_received(self._waiting.popleft())
            self.stage.pass_turns()
        self._settle_ending()

    def chokes(self, unsent_bytes: int = 2 * MOST_UNSENT_BYTES) -> None:
        """Let the client take nothing any more while so much is still to be sent."""
        self.transport.unsent_bytes = unsent_bytes
        self.connection.pause_writing()

    def takes_on(self) -> None:
        """Let the client take all that was sent."""
        self.transport.unsent_bytes = 0
        self.connection.resume_writing()

    def pass_time(self, by_s: float) -> None:
        """Let time pass and the coarse clock tick."""
        self.stage.pass_time(by_s)
        self._settle_ending()

    def answers_with(self, status: int = 200, body: bytes = b"body") -> FakeConnection:
        """Let the instance answer in full; give the next warm connection."""
        self.instance.answer(status, body)
        return self.next_connection()

    def next_connection(self) -> FakeConnection:
        """Let what was told leave, and look at the connection that carries the next request."""
        self.stage.pass_turns()
        self.connection.flush()
        self._settle_ending()
        return self.instance

    def lose(self, error: Exception | None = None) -> None:
        """Let the connection end."""
        assert not self._is_lost
        self._is_lost = True
        self.connection.connection_lost(error)

    def answers(self, *methods: bytes) -> list[Answer]:
        """Let h11 read all that was written as answers to requests with these methods."""
        unread = bytes(self.transport.written)
        answers = []
        for method in methods:
            parser = h11.Connection(h11.CLIENT)
            parser.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
            parser.send(h11.EndOfMessage())
            parser.receive_data(unread)
            answers.append(self._read_answer(parser))
            unread = parser.trailing_data[0]
        assert b"" == unread
        return answers

    def _read_answer(self, parser: h11.Connection) -> Answer:
        answer = None
        interim = []
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                assert self.transport.ending == "closed", "the answer is not whole"
                parser.receive_data(b"")
                continue
            one = cast("h11.InformationalResponse | h11.Response | h11.Data", event)
            if isinstance(one, h11.InformationalResponse):
                interim.append(Answer(status=one.status_code, headers=one.headers.raw_items()))
            elif isinstance(one, h11.Response):
                answer = Answer(
                    status=one.status_code, headers=one.headers.raw_items(), interim=interim
                )
            else:
                assert answer is not None
                answer.body += one.data
        assert answer is not None
        answer.trailers = event.headers.raw_items()
        return answer

    def _settle_ending(self) -> None:
        """Tell the end of a connection that is aborted, or closed with nothing unsent."""
        ending, unsent_bytes = self.transport.ending, self.transport.unsent_bytes
        if ending and not self._is_lost and (ending == "aborted" or not unsent_bytes):
            self.lose()
