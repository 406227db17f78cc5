"""Floods of TLS handshakes, from an address that never finishes one, beside honest clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.memory import PeakOfMemory
from tests.fakes.scenes import respond
from tests.fakes.tls import Authority, SecuredClient
from tests.fakes.upstream import ScriptedUpstream

pytestmark = pytest.mark.soak

ATTACKER, HONEST = "127.0.0.2", "127.0.0.3"
PER_SECOND = 1000
MIB = 1024 * 1024
MOST_WAITED_S = 2.0  # usual are 0.05 to 0.4
MOST_MIB = 300  # usual are 60 to 130


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@contextmanager
def flood(port: int, *, stays: bool) -> Iterator[None]:
    """Send one ClientHello after the other until left; 10,000 of those who stay at most."""
    over, hello = Event(), client_hello()

    def send_all() -> None:
        kept: list[socket.socket] = []
        while not over.wait(1 / PER_SECOND) and len(kept) < 10_000:
            sock = socket.socket()
            sock.bind((ATTACKER, 0))
            with contextlib.suppress(OSError):
                sock.connect(("127.0.0.1", port))
                sock.sendall(hello)
            if stays:
                kept.append(sock)
            else:
                sock.close()
        for sock in kept:
            sock.close()

    sender = Thread(target=send_all, daemon=True)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.mark.parametrize("stays", [False, True], ids=["leave", "stay"])
async def test_a_flood_of_handshakes_keeps_no_other_address_waiting(
    tmp_path: Path, *, stays: bool
) -> None:
    authority = Authority(tmp_path / "certificates")
    pair = authority.pair("localhost")
    tls = {"tls_bind": "127.0.0.1:0", "tls_cert": str(pair.cert), "tls_key": str(pair.key)}
    waited_s: list[float] = []
    async with ScriptedUpstream() as web, GatewayRun(routes_to(web), tmp_path, **tls) as gateway:
        web.on_request(respond(body=b"hello"))
        memory = PeakOfMemory(gateway.pid)
        with flood(gateway.tls_port, stays=stays):
            for _ in range(30):
                await asyncio.sleep(0.2)
                began_s = time.monotonic()
                async with SecuredClient(gateway.tls_port, source=HONEST) as client:
                    await client.secure(authority.client_context())
                    await client.send(ask())
                    assert (await client.read_response()).status == 200
                waited_s.append(time.monotonic() - began_s)
        held_mib = memory.peak_bytes // MIB

    assert max(waited_s) < MOST_WAITED_S
    assert held_mib < MOST_MIB
