"""What comes over several connections in one turn of the loop: nobody suffers for another one.

The gateway is stopped while both sides act, so that it finds all of it at once when it goes on.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OFFER = ask("/", "GET", ("Connection", "Upgrade"), ("Upgrade", "echo"))
SWITCHES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A gateway that can be stopped for a moment, and the listener of its one instance."""

    gateway: GatewayRun
    listener: socket.socket

    def client(self) -> socket.socket:
        """Connect a client."""
        return socket.create_connection(("127.0.0.1", self.gateway.port), timeout=PATIENCE_S)

    def instance(self) -> socket.socket:
        """Take the next connection of the gateway, and read a request from it."""
        instance, _ = self.listener.accept()
        instance.settimeout(PATIENCE_S)
        assert instance.recv(65536)
        return instance

    async def in_one_turn(self, *acts: Callable[[], object]) -> None:
        """Let these happen while the gateway stands, and let it go on."""
        self.gateway.signal(signal.SIGSTOP)
        await asyncio.sleep(0.1)  # it may be in the middle of something
        for act in acts:
            act()
            await asyncio.sleep(0.05)  # what was sent has to cross the loopback
        self.gateway.signal(signal.SIGCONT)


@asynccontextmanager
async def stopped(folder: Path) -> AsyncIterator[Stopped]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        routes = routes_to(listener.getsockname()[1], match={"path_prefix": "/a"}, upgrade=["echo"])
        async with GatewayRun(routes, folder) as gateway:
            yield Stopped(gateway, listener)


def all_of(side: socket.socket) -> bytes:
    """Read until the other side ends."""
    got = b""
    while more := side.recv(65536):
        got += more
    return got


@pytest.mark.parametrize(
    ("sent", "rest", "status"),
    [
        (ask("/nowhere", "GET", ("Connection", "close")), b"", b"404"),
        (ask("/nowhere", "GET", ("Connection", "close"))[:-8], b"lose\r\n\r\n", b"404"),
        (ask("/nowhere", "POST", ("Connection", "close"), body=b"x" * 20_000), b"", b"404"),
    ],
    ids=["whole", "in two pieces", "large"],
)
async def test_a_client_that_breaks_off_its_chunks_hurts_nobody_else(
    tmp_path: Path, sent: bytes, rest: bytes, status: bytes
) -> None:
    """What it sends wrong is noticed when it was answered already, and its side has ended."""
    broken = ask("/nowhere", "POST", ("Transfer-Encoding", "chunked"))[:-2] + b"\r\nZZ\r\n"
    async with stopped(tmp_path) as stage:
        with stage.client() as wrong, stage.client() as other:
            await stage.in_one_turn(lambda: wrong.sendall(broken), lambda: other.sendall(sent))
            other.sendall(rest)
            answers = [await asyncio.to_thread(all_of, side) for side in (wrong, other)]
        await wait_until(lambda: len(stage.gateway.requests) >= 2)

    assert [one.split(b" ", 2)[1] for one in answers] == [b"404", status]
    assert [one.count(b"HTTP/1.1 ") for one in answers] == [1, 1]
    assert sorted(one["path"] for one in stage.gateway.requests) == ["/nowhere"] * 2
    assert "Traceback" not in stage.gateway.said


async def test_an_answer_arrives_at_a_client_that_ends_its_side_meanwhile(tmp_path: Path) -> None:
    async with stopped(tmp_path) as stage:
        with stage.client() as client:
            client.sendall(ask("/a"))
            with await asyncio.to_thread(stage.instance) as instance:
                await stage.in_one_turn(
                    lambda: instance.sendall(OK), lambda: client.shutdown(socket.SHUT_WR)
                )
                got = await asyncio.to_thread(all_of, client)

    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("first", ["client", "instance"])
async def test_the_last_bytes_of_a_tunnel_arrive_where_the_other_side_ends_meanwhile(
    tmp_path: Path, first: str
) -> None:
    """One side sends its last, and the other one ends its own direction in the same moment."""
    async with stopped(tmp_path) as stage:
        with stage.client() as client:
            client.sendall(OFFER.replace(b"GET / ", b"GET /a "))
            with await asyncio.to_thread(stage.instance) as instance:
                instance.sendall(SWITCHES)
                assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 101 ")
                one, other = (client, instance) if first == "client" else (instance, client)
                await stage.in_one_turn(
                    lambda: one.sendall(b"the last"), lambda: other.shutdown(socket.SHUT_WR)
                )
                got = await asyncio.to_thread(all_of, other)

    assert got == b"the last"
