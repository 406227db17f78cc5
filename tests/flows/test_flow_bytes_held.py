"""How many bytes the gateway holds for a connection whose other side takes nothing.

A bound for each connection times `GATEWAY_MAX_CONNECTIONS` is what an operator has to give it; see
docs/operations.md. The kernel's buffers are not part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path
from typing import cast

import pytest

from benchmarks.processes import cpu_s
from tests.fakes.gateway import ask, routes_file
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.memory import PeakOfMemory
from tests.fakes.tls import Authority
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(240)]

COUNT = 400
FEW = 10
DRIPS_FOR_S = 30
MOST_BYTES_EACH = 192 * 1024
KERNEL_BYTES = 32 * 1024
BODY_BYTES = 8 * 1024 * 1024
OFFER = ask(
    "/web",
    "GET",
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
)
OFFER_OF_SILENCE = OFFER.replace(b"/web", b"/web/silent")
SWITCHES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
FRAME = b"\x82\x7f" + (60_000).to_bytes(8, "big") + bytes(60_000)
MASKED_FRAME = b"\x82\xff" + (60_000).to_bytes(8, "big") + bytes(60_004)
UPLOAD = ask("/web", "POST", ("Content-Length", str(BODY_BYTES)))
UPLOAD_IN_CHUNKS = ask("/web", "POST", ("Transfer-Encoding", "chunked"))
KINDS = {
    "a response is not read": (ask("/web"), b"", 0),
    "a WebSocket is not read": (OFFER, b"", 0),
    "responses to pipelined requests are not read": (b"", ask("/nowhere"), 40_000),
    "an upload is not read": (UPLOAD, bytes(65536), BODY_BYTES // 65536),
    "an upload of small chunks is not read": (UPLOAD_IN_CHUNKS, b"1\r\nx\r\n", 500_000),
    "what a WebSocket sends is not read": (OFFER_OF_SILENCE, MASKED_FRAME, 60),
    "an app does not take its body": (
        ask("/idle", "POST", ("Content-Length", str(BODY_BYTES))),
        bytes(65536),
        BODY_BYTES // 65536,
    ),
    "the response of an app is not read": (ask("/endless"), b"", 0),
    "the response of an app in one piece is not read": (ask("/large"), b"", 0),
}
DRIPPING = {
    "a response": (ask("/dripping"), b"", 0),
    "an upload": (UPLOAD_IN_CHUNKS, b"1\r\nx\r\n", 20_000),
}
# What does not reach an instance, or not a client, is the same whatever that side speaks.
CASES = [("plain", kind) for kind in KINDS] + [
    ("tls clients", "a response is not read"),
    ("tls clients", "a WebSocket is not read"),
    ("tls clients", "responses to pipelined requests are not read"),
    ("tls clients", "an upload is not read"),
    ("tls clients", "the response of an app is not read"),
    ("tls instances", "a response is not read"),
    ("tls instances", "an upload is not read"),
    ("tls instances", "what a WebSocket sends is not read"),
]


class Instance(asyncio.Protocol):
    """One connection: sends a large body for a GET, and reads nothing but the head."""

    def __init__(self, made: set[asyncio.Transport]) -> None:
        self._made = made
        self._head = b""
        self._pieces: Iterator[bytes] = iter(())
        self._may_write = True
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._made.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        self._transport.pause_reading()
        if b"websocket" in self._head:
            self._transport.write(SWITCHES)
        elif self._head.startswith(b"GET"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        if self._head.startswith(b"GET") and b"/silent" not in self._head:
            piece = FRAME if b"websocket" in self._head else bytes(65536)
            self._pieces = repeat(piece, BODY_BYTES // 65536)
            self._go_on()

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._made.discard(self._transport)

    def _go_on(self) -> None:
        while self._may_write and (piece := next(self._pieces, None)) is not None:
            self._transport.write(piece)


@asynccontextmanager
async def instances(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Give the port of an instance; in the end nothing of its connections is left."""
    made: set[asyncio.Transport] = set()
    listener = small(socket.socket())
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(
        lambda: Instance(made), sock=listener, backlog=COUNT, ssl=context
    )
    try:
        yield listener.getsockname()[1]
    finally:
        server.close()
        for transport in tuple(made):
            transport.abort()
        await wait_until(lambda: not made)


def small(sock: socket.socket) -> socket.socket:
    """Let the kernel keep little of what is sent and not read."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    return sock


async def visit(port: int, context: ssl.SSLContext | None, kind: str) -> asyncio.StreamWriter:
    """Connect, send what this kind begins with, and read no more than the head that switches."""
    start, _, _ = (KINDS | DRIPPING)[kind]
    sock = small(socket.socket())
    sock.settimeout(0)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(
        sock=sock,
        ssl=context,
        server_hostname="localhost" if context else None,
        limit=1024,
    )
    writer.write(start)
    if b"websocket" in start:
        await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return writer


async def flood(writer: asyncio.StreamWriter, again: bytes, count: int) -> None:
    """Send so much, as far as it is taken."""
    at_a_time = max(1, 65536 // max(1, len(again)))
    with contextlib.suppress(OSError):
        for _ in range(0, count, at_a_time):
            writer.write(again * at_a_time)
            await writer.drain()


async def drip(writer: asyncio.StreamWriter, again: bytes, count: int) -> None:
    """Send so many pieces, each for itself, as far as they are taken."""
    with contextlib.suppress(OSError):
        for _ in range(count):
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(0)


async def leave(*visitors: asyncio.StreamWriter) -> None:
    """Go at once, and leave nothing behind."""
    for one in visitors:
        one.transport.abort()
    for one in visitors:
        with contextlib.suppress(OSError):
            await one.wait_closed()


@asynccontextmanager
async def gateway(
    folder: Path, side: str
) -> AsyncIterator[tuple[GatewayRun, ssl.SSLContext | None]]:
    """Serve an instance, with TLS on one side or on none."""
    authority = Authority(folder)
    pair = authority.pair("localhost")
    is_secured = side == "tls instances"
    scheme = "https" if is_secured else "http"
    context = authority.instance_context("localhost") if is_secured else None
    async with instances(context) as port:
        routes = routes_file(
            {
                "web": {
                    "servers": [f"{scheme}://localhost:{port}"],
                    **({"tls": {"ca_file": str(authority.ca_file)}} if is_secured else {}),
                }
            },
            {
                "match": {"path_prefix": "/web"},
                "service": "web",
                "upgrade": ["websocket"],
                "timeouts": {"response": "60s"},
            },
            {"match": {"path_prefix": "/idle"}, "app": "tests.fakes.apps:idle"},
            {"match": {"path_prefix": "/endless"}, "app": "tests.fakes.apps:endless"},
            {"match": {"path_prefix": "/large"}, "app": "tests.fakes.apps:large"},
            {"match": {"path_prefix": "/dripping"}, "app": "tests.fakes.apps:dripping"},
        )
        tls = {"tls_bind": "127.0.0.1:0", "tls_cert": str(pair.cert), "tls_key": str(pair.key)}
        async with GatewayRun(routes, folder, access_log="off", **tls) as running:
            yield running, authority.client_context() if side == "tls clients" else None


async def settled_bytes(memory: PeakOfMemory) -> int:
    """Wait until it uses no more memory than a moment before; return how much."""
    before, now = -1, memory.now_bytes
    while now - before > COUNT * 1024:
        await asyncio.sleep(1)  # nothing says that something grows no more but time
        before, now = now, memory.now_bytes
    return now


async def at_rest(pid: int) -> None:
    """Wait until this process does nothing any more: it waits for everybody."""
    before_s, now_s = -1.0, cpu_s(pid)
    while now_s - before_s > 0.1:
        await asyncio.sleep(1)
        before_s, now_s = now_s, cpu_s(pid)


@pytest.mark.parametrize(("side", "kind"), CASES)
async def test_little_is_held_for_a_connection_that_takes_nothing(
    tmp_path: Path, kind: str, side: str
) -> None:
    """Each client has a connection to the instance behind it; what is held for both counts."""
    _, again, count = KINDS[kind]
    async with gateway(tmp_path, side) as (running, context):
        port = running.tls_port if context else running.port
        memory = PeakOfMemory(running.pid)
        warm = await visit(port, context, kind)
        before_bytes = await settled_bytes(memory)
        visitors = [await visit(port, context, kind) for _ in range(COUNT)]
        async with asyncio.TaskGroup() as tasks:
            sending = [tasks.create_task(flood(one, again, count)) for one in visitors if again]
            held_bytes = await settled_bytes(memory) - before_bytes
            for task in sending:
                task.cancel()
        await leave(*visitors, warm)

    assert held_bytes / COUNT < MOST_BYTES_EACH


@pytest.mark.parametrize(
    ("side", "kind"),
    [("plain", "a response"), ("tls clients", "a response"), ("plain", "an upload")],
)
async def test_little_is_held_of_bytes_that_come_one_by_one(
    tmp_path: Path, kind: str, side: str
) -> None:
    """What a piece costs beside its bytes counts, and there are thousands of them."""
    _, again, count = DRIPPING[kind]
    async with gateway(tmp_path, side) as (running, context):
        port = running.tls_port if context else running.port
        memory = PeakOfMemory(running.pid)
        warm = await visit(port, context, kind)
        before_bytes = await settled_bytes(memory)
        visitors = [await visit(port, context, kind) for _ in range(FEW)]
        async with asyncio.TaskGroup() as tasks:
            sending = [tasks.create_task(drip(one, again, count)) for one in visitors if again]
            if sending:
                await asyncio.wait(sending, timeout=DRIPS_FOR_S)
            await at_rest(running.pid)
            held_bytes = await settled_bytes(memory) - before_bytes
            for task in sending:
                task.cancel()
        await leave(*visitors, warm)

    assert held_bytes / FEW < MOST_BYTES_EACH
