"""Nobody waits long for anybody: whatever one peer sends at full speed, others get their turn.

Waiting is counted in CPU time of the gateway's loop, between a request of somebody else and its
answer: so it is the same on a busy machine. Without shares each of these floods takes the loop for
seconds.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Self

import pytest

from tests.fakes.gateway import ask, routes_file
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.tls import Authority

pytestmark = pytest.mark.soak

MOST_CPU_S = 0.05
FLOOD_BYTES = 3_000_000
PROBES = 9
SO_SNDBUFFORCE = 32  # socket(7)
WEBSOCKET = ask(
    "/instance",
    "GET",
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
)
SWITCHES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
UPLOAD = ask("/instance", "POST", ("Transfer-Encoding", "chunked"))
TO_APP = ask("/app", "POST", ("Transfer-Encoding", "chunked"))
TO_APP_AND_CLOSE = (
    ask("/app", "POST", ("Transfer-Encoding", "chunked"), ("Connection", "close"))
    + b"1\r\nx\r\n" * 5000
    + b"0\r\n\r\n"
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def get(target: str, *fields: tuple[str, str]) -> bytes:
    return ask(target, "GET", *fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What one peer sends: a start, and then the same again and again."""

    start: bytes = b""
    again: bytes
    over_tls: bool = False
    to_redirect: bool = False


CLIENTS = {
    "answered 404": Flood(again=get("/nowhere")),
    "answered 405": Flood(again=ask("/instance", "DELETE")),
    "answered 503": Flood(again=get("/nobody")),
    "answered 400": Flood(again=get("/nowhere%00")),
    "answered by an app": Flood(again=get("/app")),
    "answered 308": Flood(again=get("/anywhere"), to_redirect=True),
    "answered 404 over TLS": Flood(again=get("/nowhere"), over_tls=True),
    "OPTIONS *": Flood(again=ask("*", "OPTIONS")),
    "paths of escapes": Flood(again=get("/" + "%BF" * 2500)),
    "paths encoded twice": Flood(again=get("/" + "%2525" * 1500)),
    "commas in Connection": Flood(again=get("/nowhere", ("Connection", "," * 60_000))),
    "names in Connection": Flood(again=get("/nowhere", ("Connection", "a,b ," * 12_000))),
    "a hundred fields": Flood(again=get("/nowhere", *[("X_Forwarded_For", "a, " * 200)] * 95)),
    "chunks of a byte": Flood(start=UPLOAD, again=b"1\r\nx\r\n"),
    "chunks of a byte over TLS": Flood(start=UPLOAD, again=b"1\r\nx\r\n", over_tls=True),
    "chunks with extensions": Flood(start=UPLOAD, again=b"1;a=b\r\nx\r\n"),
    "chunks to an app": Flood(start=TO_APP, again=b"1\r\nx\r\n"),
    "frames of a WebSocket": Flood(start=WEBSOCKET, again=b"\x89\x80\0\0\0\0"),
    "frames over TLS": Flood(start=WEBSOCKET, again=b"\x89\x80\0\0\0\0", over_tls=True),
    "empty lines": Flood(again=b"\r\n"),
}
INSTANCES = {
    "chunks of a byte": (b"", Flood(start=CHUNKED, again=b"1\r\nx\r\n")),
    "chunks with extensions": (b"", Flood(start=CHUNKED, again=b"1;a=b\r\nx\r\n")),
    "frames of a WebSocket": (WEBSOCKET, Flood(start=SWITCHES, again=b"\x89\0")),
    "interim answers": (
        b"",
        Flood(again=b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % (b"Link: %b\r\n" % (b"a" * 50) * 900)),
    ),
    "commas in Connection": (
        b"",
        Flood(again=b"HTTP/1.1 103 Early Hints\r\nConnection: %b\r\n\r\n" % (b"a," * 30_000)),
    ),
}


class Instance:
    """Takes whatever it is sent, and answers nothing but what a test sends on `asked`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self.asked: queue.Queue[socket.socket] = queue.Queue()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=(sock,), daemon=True).start()

    def _converse(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            if sock.recv(65536):
                self.asked.put(sock)
            while sock.recv(1 << 20):
                pass


@dataclass(frozen=True, slots=True)
class Stage:
    """A gateway, the instance of its one service, and the authority of its TLS listener."""

    gateway: GatewayRun
    instance: Instance
    authority: Authority

    def client(self, *, over_tls: bool = False) -> socket.socket:
        """Connect a client with room for a whole flood."""
        port = self.gateway.tls_port if over_tls else self.gateway.port
        plain = roomy(socket.create_connection(("127.0.0.1", port), timeout=30))
        if not over_tls:
            return plain
        context = self.authority.client_context()
        return context.wrap_socket(plain, server_hostname="localhost")

    def wait_s(self, probe: socket.socket, flood: Callable[[], None]) -> float:
        """Tell how long the loop works before it answers somebody who asks behind a flood.

        The gateway is stopped until both have arrived, as far as the kernel takes them; that is
        the first wait. The rest of the flood comes while it works: of those waits the middle one
        counts, for the work that is done while this program does not run is in them. The longer
        one of both is given.
        """
        answered_at_s = [spent_s(probe)]
        self.gateway.signal(signal.SIGSTOP)
        flood()
        probe.sendall(get("/spent"))
        self.gateway.signal(signal.SIGCONT)
        answered_at_s.append(answer_of(probe))
        answered_at_s.extend(spent_s(probe) for _ in range(PROBES))
        first_s, *others_s = [after - before for before, after in pairwise(answered_at_s)]
        return max(first_s, median(others_s))


def roomy(sock: socket.socket) -> socket.socket:
    """Let the kernel keep a whole flood."""
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * FLOOD_BYTES)
    return sock


def spent_s(probe: socket.socket) -> float:
    """Ask for the CPU time that the thread of the loop has taken."""
    probe.sendall(get("/spent"))
    return answer_of(probe)


def answer_of(probe: socket.socket) -> float:
    got = b""
    while not got.endswith(b"}"):
        piece = probe.recv(65536)
        assert piece, got
        got += piece
    return float(json.loads(got.partition(b"\r\n\r\n")[2])["cpu_s"])


@asynccontextmanager
async def stage(folder: Path, **settings: str) -> AsyncIterator[Stage]:
    authority = Authority(folder)
    pair = authority.pair("localhost")
    with Instance() as instance:
        routes = routes_file(
            {
                "one": {"servers": [f"http://127.0.0.1:{instance.port}"]},
                "none": {"servers": ["http://127.0.0.1:1"]},  # nobody listens there
            },
            {
                "match": {"path_prefix": "/instance", "methods": ["GET", "POST"]},
                "service": "one",
                "upgrade": ["websocket"],
            },
            {"match": {"path_prefix": "/nobody"}, "service": "none"},
            {"match": {"path_prefix": "/app"}, "app": "tests.fakes.apps:echo"},
            {"match": {"path_prefix": "/spent"}, "app": "tests.fakes.apps:spent"},
        )
        tls = {"tls_bind": "127.0.0.1:0", "tls_cert": str(pair.cert), "tls_key": str(pair.key)}
        async with GatewayRun(routes, folder, **tls, **settings) as gateway:
            yield Stage(gateway, instance, authority)


@pytest.mark.parametrize("name", CLIENTS)
async def test_nobody_waits_long_for_a_client_that_floods(tmp_path: Path, name: str) -> None:
    one = CLIENTS[name]
    settings = {"http_redirect": "on"} if one.to_redirect else {}
    async with stage(tmp_path, **settings) as play:
        with play.client(over_tls=one.over_tls) as flooding:
            flooding.sendall(one.start)
            if one.start == WEBSOCKET:
                play.instance.asked.get(timeout=30).sendall(SWITCHES)
                assert flooding.recv(65536).startswith(b"HTTP/1.1 101 ")
            elif one.start == UPLOAD:
                play.instance.asked.get(timeout=30)
            blob = one.again * (FLOOD_BYTES // len(one.again))
            with play.client(over_tls=one.to_redirect) as probe:
                waited_s = play.wait_s(probe, lambda: flooding.sendall(blob))

    assert waited_s < MOST_CPU_S


@pytest.mark.parametrize("name", INSTANCES)
async def test_nobody_waits_long_for_an_instance_that_floods(tmp_path: Path, name: str) -> None:
    asks, one = INSTANCES[name]
    async with stage(tmp_path) as play:
        with play.client() as client, play.client() as probe:
            client.sendall(asks or get("/instance"))
            asked = roomy(play.instance.asked.get(timeout=30))
            asked.settimeout(30)
            blob = one.start + one.again * (FLOOD_BYTES // len(one.again))
            waited_s = play.wait_s(probe, lambda: asked.sendall(blob))

    assert waited_s < MOST_CPU_S


MANY_CLIENTS = {
    "answered 404": (30, get("/nowhere") * 4000),
    "paths of escapes": (100, get("/" + "%bf" * 2500)),
    "paths encoded twice": (100, get("/" + "%2525" * 1500)),
    "a hundred fields": (100, get("/nowhere", *[("X_Forwarded_For", "a, " * 200)] * 95)),
    "chunks of a byte": (100, TO_APP + b"1\r\nx\r\n" * 9000),
}


@pytest.mark.parametrize("name", MANY_CLIENTS)
async def test_many_clients_that_flood_share_one_turn(tmp_path: Path, name: str) -> None:
    """What each of them may do in a turn is bounded, and so is what all of them may."""
    count, blob = MANY_CLIENTS[name]
    async with stage(tmp_path) as play, AsyncExitStack() as stack:
        flooding = [stack.enter_context(play.client()) for _ in range(count)]

        def flood() -> None:
            for one in flooding:
                one.sendall(blob)

        with play.client() as probe:
            waited_s = play.wait_s(probe, flood)

    assert waited_s < MOST_CPU_S


@pytest.mark.parametrize("name", ["interim answers", "chunks of a byte"])
async def test_many_connections_of_an_instance_share_one_turn(tmp_path: Path, name: str) -> None:
    _, one = INSTANCES[name]
    blob = one.start + one.again * (60_000 // len(one.again) or 1)
    async with stage(tmp_path) as play, AsyncExitStack() as stack:
        clients = [stack.enter_context(play.client()) for _ in range(100)]
        for client in clients:
            client.sendall(get("/instance"))
        asked = [play.instance.asked.get(timeout=30) for _ in clients]

        def flood() -> None:
            for sock in asked:
                roomy(sock).sendall(blob)

        with play.client() as probe:
            waited_s = play.wait_s(probe, flood)

    assert waited_s < MOST_CPU_S


@pytest.mark.parametrize("page", ["/health", "/api/services", "/api/routes"])
async def test_nobody_waits_long_for_pages_of_thousands_of_instances(
    tmp_path: Path, page: str
) -> None:
    many = [f"http://127.0.0.1:{port}" for port in range(20_000, 25_000)]
    routes = routes_file(
        {"many": {"servers": many}},
        {"match": {"path_prefix": "/spent"}, "app": "tests.fakes.apps:spent"},
        *({"match": {"path_prefix": f"/{number}"}, "service": "many"} for number in range(1000)),
    )
    async with GatewayRun(routes, tmp_path) as gateway:
        with Instance() as instance, ExitStack() as stack:
            play = Stage(gateway, instance, Authority(tmp_path))
            asking = [
                stack.enter_context(
                    socket.create_connection(("127.0.0.1", gateway.admin_port), timeout=30)
                )
                for _ in range(32)
            ]

            def ask_all() -> None:
                for one in asking:
                    one.sendall(get(page).replace(b"Host: shop.example", b"Host: localhost"))

            with play.client() as probe:
                waited_s = play.wait_s(probe, ask_all)
            answered = {one.recv(12) for one in asking}

    assert answered == {b"HTTP/1.1 200"}
    assert waited_s < MOST_CPU_S


async def test_all_that_was_put_off_is_answered_in_the_end(tmp_path: Path) -> None:
    async with stage(tmp_path) as play:
        with play.client() as client:
            threading.Thread(
                target=client.sendall,
                args=(get("/nowhere") * 4999 + TO_APP_AND_CLOSE,),
                daemon=True,
            ).start()
            got = b""
            while piece := client.recv(1 << 20):
                got += piece

    assert got.count(b"HTTP/1.1 404 ") == 4999
    assert got.endswith(b"\r\n\r\n/app " + b"x" * 5000)
