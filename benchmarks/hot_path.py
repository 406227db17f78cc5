"""The hot path alone: a request's bytes in, an answer's bytes out, and nothing of a kernel between.

`python -m benchmarks.hot_path` tells, function by function, how many instructions of Python a
proxied request costs on a warm connection, and how many microseconds in all. The instructions are
the same on every machine, so a test of the normal suite holds them to a bound.

`python -m benchmarks.hot_path get 2000` only runs so many requests, for callgrind; with `post` they
have a body of 2 KB:

    valgrind --tool=callgrind python -m benchmarks.hot_path get 2000
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from gateway.app import Gateway, create_app
from gateway.edge.protocol import ClientConnection
from gateway.proxy.outbox import Outbox
from gateway.proxy.pool import Pool
from gateway.proxy.upstream import UpstreamConnection
from gateway.settings import load_settings

_ROUTES = """
version: 1
services: {users: {servers: ["http://127.0.0.1:1", "http://127.0.0.1:2"]}}
routes:
  - {match: {path_prefix: /api/users}, service: users, strip_prefix: true}
"""
_FIELDS = (
    "Host: shop.example\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7\r\n"
    "Cache-Control: no-cache\r\n"
    "Cookie: session={session}; theme=dark; consent=yes\r\n"
    "Referer: https://www.example.com/catalogue/shoes?size=42&colour=blue&sort=price\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
)
_BODY = b'{"id": 42, "name": "Ada", "mail": "ada@example.com"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 27 Nov 2026 05:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
    % (len(_BODY), _BODY)
)
_UPLOAD = b'{"note": "%b"}' % (b"0123456789abcdef" * 124)
_ROUND = 32
_ROUNDS = 400


def requests(count: int) -> list[bytes]:
    """Write requests as a browser sends them, no two alike."""
    return [
        f"GET /api/users/{number} HTTP/1.1\r\n"
        f"{_FIELDS.format(session=f'{number * 7919:06x}' * 60)}\r\n".encode()
        for number in range(count)
    ]


def posts(count: int) -> list[bytes]:
    """Write requests as a program sends them, each with a body that comes with its head."""
    return [
        b"POST /api/users/%d HTTP/1.1\r\nHost: shop.example\r\nAccept: application/json\r\n"
        b"User-Agent: orders/3.2\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (number, b"7f" * 80, len(_UPLOAD), _UPLOAD)
        for number in range(count)
    ]


KINDS = {"get": requests, "post": posts}


class _Wire(asyncio.Transport):
    """A transport that keeps what is written until it is taken."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711), "sockname": ("192.0.2.2", 8080)})
        self.written = b""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep whatever is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def take(self) -> bytes:
        taken, self.written = self.written, b""
        return taken

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False


class _State:
    """What uvicorn shares among connections."""

    def __init__(self) -> None:
        self.total_requests = 0
        self.connections: set[Any] = set()


class HotPath:
    """A gateway between one client and two instances, all of them on warm connections."""

    def __init__(self, gateway: Gateway) -> None:
        # There are no turns here: what is written leaves when `ask` says so.
        self._outbox = gateway.engine.outbox = Outbox(lambda _: None)
        self._wire = _Wire()
        self._client = ClientConnection(gateway.fast_face, _State())
        self._client.connection_made(self._wire)
        self._upstream: list[tuple[UpstreamConnection, _Wire]] = []
        for member in gateway.engine.fleets["users"].members.values():
            pool = member.pool
            assert isinstance(pool, Pool)
            engine = gateway.engine
            connection = UpstreamConnection(
                pool, time.monotonic, self._outbox, engine.backlog, engine.buffer
            )
            wire = _Wire()
            connection.connection_made(wire)
            connection.was_used, connection.idle_since_s = True, time.monotonic()
            pool.take_back(connection)
            self._upstream.append((connection, wire))

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Let the client ask and an instance answer; give what each of them was sent."""
        self._client.data_received(request)
        self._outbox.send()
        connection, wire = next(one for one in self._upstream if one[1].written)
        sent = wire.take()
        connection.data_received(ANSWER)
        self._outbox.send()
        return sent, self._wire.take()

    def leave(self) -> None:
        """Let the client leave."""
        self._client.connection_lost(None)


@asynccontextmanager
async def hot_path() -> AsyncIterator[HotPath]:
    """Run a gateway for as long as this lasts."""
    with tempfile.TemporaryDirectory() as folder:
        routes = Path(folder) / "routes.yaml"
        routes.write_text(_ROUTES, encoding="utf-8")
        settings = {"config": routes, "registry": "static", "access_log": "off", "state_dir": "off"}
        gateway = create_app(load_settings(settings))
        async with gateway.running():
            path = HotPath(gateway)
            try:
                yield path
            finally:
                path.leave()


@dataclass(frozen=True, slots=True)
class Cost:
    """What some requests cost, in instructions and calls of Python, by function."""

    instructions: Counter[str]
    calls: Counter[str]
    count: int

    @property
    def instructions_each(self) -> float:
        """Instructions for one request."""
        return self.instructions.total() / self.count

    @property
    def calls_each(self) -> float:
        """Calls of functions in Python for one request."""
        return self.calls.total() / self.count


def cost_of(path: HotPath, asked: Iterable[bytes]) -> Cost:
    """Count what these requests cost; only the gateway's own code counts."""
    listed = list(asked)
    instructions: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    names: dict[CodeType, str] = {}

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        code = frame.f_code
        if code not in names:
            _, found, module = code.co_filename.rpartition("/gateway/")
            names[code] = f"{module}:{code.co_qualname}" if found else ""
        name = names[code]
        if not name:
            return None
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            calls[name] += 1
        elif event == "opcode":
            instructions[name] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for request in listed:
            path.ask(request)
    finally:
        sys.settrace(before)
    return Cost(instructions, calls, len(listed))


def _time_us(path: HotPath, asked: list[bytes]) -> float:
    """Give the CPU time of a request in the best of many short rounds."""
    best_s = float("inf")
    for _ in range(_ROUNDS):
        start_s = time.process_time()
        for request in asked:
            path.ask(request)
        best_s = min(best_s, time.process_time() - start_s)
    return best_s / _ROUND * 1e6


async def _main(kind: str, count: int) -> None:
    async with hot_path() as path:
        asked = KINDS[kind](_ROUND)
        for request in asked * 8:
            path.ask(request)
        if count:
            for number in range(count):
                path.ask(asked[number % _ROUND])
            return
        cost = cost_of(path, asked)
        gc.freeze()
        for name, instructions in cost.instructions.most_common(40):
            print(f"{instructions / cost.count:7.1f} {cost.calls[name] / cost.count:5.1f}  {name}")
        print(f"{cost.instructions_each:7.1f} {cost.calls_each:5.1f}  all")
        print(f"{_time_us(path, asked):.1f} µs of CPU, with that of the played sides")


if __name__ == "__main__":
    kind, count, *_ = *sys.argv[1:], *("get", "0")[len(sys.argv) - 1 :]
    asyncio.run(_main(kind, int(count)))
