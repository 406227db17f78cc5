"""Many clients in a program of their own, that is told what to do line by line.

The rule: each line is a command with a number of seconds, and is answered with a line of JSON. What
the clients do is said in `tests.fakes.crowd_busy` and `tests.fakes.crowd_slow`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import uvloop

Told = dict[str, Any]
Commands = Mapping[str, Callable[[float], Awaitable[Told]]]


class Crowd:
    """Such a program, as whoever runs it sees it."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def tell(self, command: str, seconds: float = 0.0) -> Told:
        """Give a command, and wait for what is said to it."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{command} {seconds}\n".encode())
        told: Told = json.loads(await self._child.stdout.readline())
        return told


@asynccontextmanager
async def running(program: str, port: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run such a program for as long as this lasts."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", program, str(port), str(count))
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield child
    finally:
        child.kill()
        await child.communicate()


async def connect(client: asyncio.Protocol, port: int) -> None:
    """Give a client a connection."""
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: client, "127.0.0.1", port)


def follow(make: Callable[[int, int], Commands]) -> None:
    """Be such a program: make clients for a port, so many, and follow commands until the end."""

    async def run() -> None:
        commands = make(int(sys.argv[1]), int(sys.argv[2]))
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, seconds = line.split()
            print(json.dumps(await commands[command](float(seconds))), flush=True)  # noqa: T201

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
