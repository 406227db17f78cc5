"""The command in the README for an ASGI server, just as it stands there: it holds."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.demo.ports import free_ports
from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import clean_environment
from tests.fakes.peer import Peer
from tests.fakes.scenes import chunk, head
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import stuck_at, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"uvicorn --factory gateway\.app:create_app[^`\n]*")
MIB = 1024 * 1024


def command_in(page: str) -> str:
    commands: set[str] = set(COMMAND.findall((ROOT / page).read_text(encoding="utf-8")))
    assert len(commands) == 1, commands
    return commands.pop()


class Program:
    """The command while it runs; `port` is where it listens."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    @property
    def peak_bytes(self) -> int:
        """The most memory that it has had until now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@asynccontextmanager
async def running(routes: str, folder: Path) -> AsyncIterator[Program]:
    """Run it; its port comes from the environment, so that nothing is added to it."""
    config, port = folder / "routes.yaml", free_ports(1)[0]
    config.write_text(routes, encoding="utf-8")
    environment = clean_environment(
        GATEWAY_CONFIG=str(config),
        GATEWAY_REGISTRY="static",
        GATEWAY_STATE_DIR="off",
        UVICORN_PORT=str(port),
    )
    program, *arguments = shlex.split(command_in("README.md"))
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    process = _start(command, environment, folder / "said")
    try:
        started = Program(process, port)
        await wait_until(started.answers, every_s=0.05)
        yield started
    finally:
        process.kill()
        process.wait()


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )


async def send_all(client: RawClient, piece: bytes, times: int, sent: list[int]) -> None:
    """Send so many pieces, or as many as the other side takes; note how many in `sent`."""
    with contextlib.suppress(ConnectionError):
        for _ in range(times):
            await client.send(piece)
            sent[0] += 1


async def is_well(port: int) -> bool:
    async with RawClient(port) as client:
        await client.send(ask("/", "GET", ("Connection", "close")))
        return (await client.read_response()).status == 200


def test_it_is_the_same_wherever_it_is_written() -> None:
    assert command_in("README.md") == command_in("docs/operations.md")


async def test_pipelined_requests_do_not_pile_up(tmp_path: Path) -> None:
    """7 MB of them took 622 MiB with uvicorn's other protocol."""
    async with ScriptedUpstream() as web, running(routes_to(web), tmp_path) as program:
        assert await is_well(program.port)
        before_bytes = program.peak_bytes
        sent = [0]
        async with RawClient(program.port) as client, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send_all(client, ask() * 2000, 70, sent))
            await stuck_at(sent)  # nobody reads, so it ends before all of it is sent
            assert await is_well(program.port)
            assert program.peak_bytes - before_bytes < 64 * MIB
            sending.cancel()


async def test_an_endless_head_is_not_kept(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web, running(routes_to(web), tmp_path) as program:
        assert await is_well(program.port)
        before_bytes = program.peak_bytes
        async with RawClient(program.port) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
            await send_all(client, b"x: " + b"y" * 60_000 + b"\r\n", 1000, [0])
            with contextlib.suppress(ConnectionError):
                await client.read_until_closed()
        assert await is_well(program.port)
        assert program.peak_bytes - before_bytes < 32 * MIB


async def test_a_stream_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    async def endless(peer: Peer) -> None:
        await peer.send(head(200, [(b"Transfer-Encoding", b"chunked")]))
        while True:
            await peer.send(chunk(b"tick"))
            await asyncio.sleep(0.02)  # the pace of the stream

    async with ScriptedUpstream() as web, running(routes_to(web), tmp_path) as program:
        web.on_request(endless)
        async with RawClient(program.port) as client:
            await client.send(ask())
            assert (await client.read_head()).status == 200
            program.process.send_signal(signal.SIGTERM)
            await wait_until(lambda: program.process.poll() is not None)
