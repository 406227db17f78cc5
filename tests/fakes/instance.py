"""A real instance: a program of its own that can be killed, frozen, and started again at its port.

`python -m tests.fakes.instance PORT NAME` answers every request with NAME. The rule: it is as dumb
as it can be, so that a test that kills it sees what the kernel does and nothing else.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.consul_agent import free_ports
from tests.fakes.waiting import wait_until

_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
_ROOT = Path(__file__).parents[2]


class Instance:
    """One such program, from entering the `async with` until it is left or killed.

    `program` is another module that can be run so, with a port and then `arguments`.
    """

    def __init__(
        self, name: str, *arguments: object, program: str = "tests.fakes.instance"
    ) -> None:
        self.name = name
        (self.port,) = free_ports(1)
        rest = map(str, arguments or (name,))
        self._command = [sys.executable, "-m", program, str(self.port), *rest]
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
        await wait_until(self._listens)

    def kill(self) -> None:
        """End it at once, with all its connections."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    async def stop(self) -> None:
        """Ask it to end with SIGTERM, and wait until it has."""
        child, self._child = self._child, None
        assert child is not None
        child.terminate()
        await wait_until(lambda: child.poll() is not None)

    def freeze(self) -> None:
        """Stop the process without ending it: its kernel takes connections, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def _launch(self) -> None:
        self._child = subprocess.Popen(self._command, cwd=_ROOT)

    def _listens(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, "the instance has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class Ledger(Instance):
    """One that writes down what it was sent, in a file that outlives it; see `tests.fakes.ledger`.

    It closes connections that were idle for `idle_s`.
    """

    def __init__(self, name: str, folder: Path, *, idle_s: float = 60.0) -> None:
        self._file = folder / f"{name}.ledger"
        super().__init__(name, self._file, idle_s, program="tests.fakes.ledger")

    def lines(self) -> list[str]:
        """Give `METHOD TARGET` of each request, in the order in which they came."""
        return self._file.read_text(encoding="ascii").splitlines()


async def _serve(port: int, name: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if length := _LENGTH.search(head):
                    await reader.readexactly(int(length[1]))
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2].encode()))
