"""A real instance: a program of its own that can be killed and started again at the same port.

`python -m tests.fakes.instance PORT NAME` answers every request with NAME. The rule: it is as dumb
as it can be, so that a test that kills it sees what the kernel does and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.consul_agent import free_ports
from tests.fakes.waiting import wait_until

_ROOT = Path(__file__).parents[2]


class Instance:
    """One such program, from entering the `async with` until it is left or killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        (self.port,) = free_ports(1)
        self._child: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._launch()
        await wait_until(self._listens, within_s=10)

    def kill(self) -> None:
        """End it at once, with all its connections."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _launch(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.instance", str(self.port), self.name], cwd=_ROOT
        )

    def _listens(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, "the instance has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


async def _serve(port: int, name: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2].encode()))
