"""A Consul that does what it is told: real HTTP on a real socket, without the program.

What it guarantees, each checked against a real Consul in tests/consul/test_consul_contract.py:

    a read without an index is answered at once, with X-Consul-Index >= 1
    a blocking read is answered when its service changes, or unchanged when its wait is over
    a service that exists is not woken by others; one that does not exist is woken by every write
    after a loss of state the index starts again below, and an index from before blocks

Beyond that it misbehaves on command: no leader, silence, a cut connection, any answer at all.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

STATUS_TEXT = {200: "OK"}
# What is told to those who may see something, and to those who may not.
_CATALOG = {
    "/v1/catalog/nodes": ('[{"Node": "fake"}]', "[]"),
    "/v1/catalog/services": ('{"consul": []}', "{}"),
}


@dataclass(frozen=True)
class Misbehaviour:
    """What is done instead of a proper answer to one health read.

    `silence`: nothing ever comes. `cut`: the connection is closed. Else the given answer.
    """

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    silence: bool = False
    cut: bool = False


SILENCE = Misbehaviour(silence=True)
CUT = Misbehaviour(cut=True)


@dataclass(frozen=True)
class Question:
    """One request that arrived."""

    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def index(self) -> int:
        """The index it waits on, 0 for a plain read."""
        return int(self.params.get("index", "0"))


class FakeConsul:
    """An async context manager that listens while it is entered.

    `next_answers` are used up by health reads, one each; `every_answer`, while set, is given to all
    of them. `has_leader` False makes health reads fail and leaves the status without a leader.
    `extra_headers` are added to proper answers. `is_blind` True shows nothing of the catalog, as to
    a token without rights; its health reads are then to be emptied by the test.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.questions: list[Question] = []
        self.next_answers: deque[Misbehaviour] = deque()
        self.every_answer: Misbehaviour | None = None
        self.has_leader = True
        self.is_blind = False
        self.extra_headers: dict[str, str] = {}
        self.entries: dict[str, dict[str, dict[str, Any]]] = {}
        self._index = 10
        self._service_index: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._port = 0
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def address(self) -> str:
        """The URL of its HTTP API."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def connection_count(self) -> int:
        """How many connections are open now."""
        return len(self._conversations)

    def asked(self, service: str) -> list[Question]:
        """Give the health reads of a service so far."""
        path = f"/v1/health/service/{service}"
        return [question for question in self.questions if question.path == path]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(
            self._converse, "127.0.0.1", self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more and cut every connection, as a crash does."""
        assert self._server is not None
        self._server.close()
        conversations = dict(self._conversations)
        for task, writer in conversations.items():
            writer.transport.abort()
            task.cancel()
        if conversations:
            await asyncio.wait(conversations)
        await self._server.wait_closed()

    async def register(
        self, service: str, service_id: str, port: int = 8000, **changes: Any
    ) -> None:
        """Put an instance in, or replace it; `changes` are keys of its entry's Service."""
        entry = {
            "Node": {"Node": "fake", "Address": "127.0.0.1"},
            "Service": {"ID": service_id, "Service": service, "Address": "", "Port": port}
            | changes,
            "Checks": [{"CheckID": f"service:{service_id}", "Status": "passing"}],
        }
        self.entries.setdefault(service, {})[service_id] = entry
        self._touch(service)

    async def deregister(self, service_id: str) -> None:
        """Take an instance out."""
        for service, entries in self.entries.items():
            if entries.pop(service_id, None) is not None:
                self._touch(service)

    async def set_check(self, service_id: str, status: str) -> None:
        """Set the check of an instance to passing, warning or critical."""
        for service, entries in self.entries.items():
            if service_id in entries:
                entries[service_id]["Checks"][0]["Status"] = status
                self._touch(service)

    def lose_state(self) -> None:
        """Forget everything, as a restart in dev mode does; open connections stay."""
        self.entries.clear()
        self._service_index.clear()
        self._index = 5

    def _touch(self, service: str) -> None:
        self._index += 1
        self._service_index[service] = self._index
        self._changed.set()
        self._changed = asyncio.Event()

    def _index_of(self, service: str) -> int:
        if self.entries.get(service):
            return self._service_index[service]
        return self._index

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations[task] = writer
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the other side is gone, or `stop` wants an end
        finally:
            del self._conversations[task]
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.strip().split("\r\n")
        target = urlsplit(request_line.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        question = Question(
            path=unquote(target.path),
            params=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers={name.lower(): value.strip() for name, _, value in pairs},
        )
        self.questions.append(question)
        # A client that leaves while its question is open must not keep the conversation alive.
        gone = reader.read(1)
        answer = await _first(self._answer(question), gone)
        if answer is None or answer.cut:
            return False
        body = answer.body.encode()
        fields = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        fields |= answer.headers
        rendered = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        reason = STATUS_TEXT.get(answer.status, "No")
        writer.write(f"HTTP/1.1 {answer.status} {reason}\r\n{rendered}\r\n".encode() + body)
        await writer.drain()
        return True

    async def _answer(self, question: Question) -> Misbehaviour:
        if question.path == "/v1/status/leader":
            return Misbehaviour(body=json.dumps("127.0.0.1:8300" if self.has_leader else ""))
        if question.path in _CATALOG:
            return _known(_CATALOG[question.path][self.is_blind])
        if not question.path.startswith("/v1/health/service/"):
            return Misbehaviour(404)
        wrong = self.next_answers.popleft() if self.next_answers else self.every_answer
        if wrong is not None and wrong.silence:
            await asyncio.Event().wait()
        if wrong is not None:
            return wrong
        if not self.has_leader:
            return Misbehaviour(500, "No cluster leader", {"X-Consul-Index": "1"})
        return await self._read(question)

    async def _read(self, question: Question) -> Misbehaviour:
        service = question.path.rpartition("/")[2]
        if question.index:
            wait_s = float(question.params["wait"].removesuffix("ms")) / 1000
            try:
                async with asyncio.timeout(wait_s):
                    while self._index_of(service) <= question.index:
                        await self._changed.wait()
            except TimeoutError:
                pass  # the wait is over: the answer is what it was
        headers = {
            "X-Consul-Index": str(self._index_of(service)),
            "X-Consul-KnownLeader": "true",
            "X-Consul-LastContact": "0",
        }
        body = json.dumps(list(self.entries.get(service, {}).values()))
        return Misbehaviour(200, body, headers | self.extra_headers)


def _known(body: str) -> Misbehaviour:
    """Answer for the catalog, which always knows something."""
    return Misbehaviour(200, body, {"X-Consul-Index": "5"})


async def _first(answer: Any, gone: Any) -> Misbehaviour | None:
    """Wait for the answer; None when the client leaves before."""
    async with asyncio.TaskGroup() as tasks:
        answering, leaving = tasks.create_task(answer), tasks.create_task(gone)
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        has_answer = answering.done()
        answering.cancel()
        leaving.cancel()
    return answering.result() if has_answer else None
