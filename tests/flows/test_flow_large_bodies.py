"""Bodies of gigabytes cross whole, and the gateway's memory stays where it was."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Protocol

import pytest

from tests.fakes.bulk import framing, length_of, read_head, read_pattern, send_pattern
from tests.fakes.gateway import routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.instance import Instance
from tests.fakes.memory import PeakOfMemory

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

MIB = 1024 * 1024
GIB = 1024 * MIB
MOST_GROWTH_BYTES = 20 * 1000 * 1000
STALLED_S = 20


class Direction(Protocol):
    """One of the two below."""

    def __call__(self, port: int, size_bytes: int, *, in_chunks: bool) -> None: ...


def download(port: int, size_bytes: int, *, in_chunks: bool) -> None:
    """Get a body, and compare each byte of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=STALLED_S) as sock:
        query = "?chunked" if in_chunks else ""
        sock.sendall(f"GET /{size_bytes}{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        with sock.makefile("rb") as source:
            words, fields = read_head(source)
            assert words[1] == b"200"
            assert length_of(fields) == (None if in_chunks else size_bytes)
            assert read_pattern(source, length_of(fields)) == size_bytes


def upload(port: int, size_bytes: int, *, in_chunks: bool) -> None:
    """Send a body; the instance says whether each byte of it was right."""
    with socket.create_connection(("127.0.0.1", port), timeout=STALLED_S) as sock:
        head = framing(size_bytes, in_chunks=in_chunks)
        sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % head)
        send_pattern(sock, size_bytes, in_chunks=in_chunks)
        with sock.makefile("rb") as source:
            words, fields = read_head(source)
            assert words[1] == b"200"
            assert source.read(length_of(fields)) == b"%d ok" % size_bytes


@pytest.mark.parametrize("direction", [download, upload])
@pytest.mark.parametrize(
    ("size_bytes", "in_chunks"),
    [(4 * GIB, False), (512 * MIB, True)],
    ids=["4 GiB", "512 MiB in chunks"],
)
async def test_a_body_of_gigabytes_crosses_in_constant_memory(
    tmp_path: Path, direction: Direction, size_bytes: int, *, in_chunks: bool
) -> None:
    async with (
        Instance("bulk", program="tests.fakes.bulk") as instance,
        GatewayRun(routes_to(instance.port), tmp_path) as gateway,
    ):
        await asyncio.to_thread(direction, gateway.port, 1, in_chunks=in_chunks)
        memory = PeakOfMemory(gateway.pid)
        before_bytes = memory.now_bytes
        await asyncio.to_thread(direction, gateway.port, size_bytes, in_chunks=in_chunks)
        growth_bytes = memory.peak_bytes - before_bytes

    assert growth_bytes < MOST_GROWTH_BYTES
