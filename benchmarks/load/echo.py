"""WebSocket clients: each sends a message when the last one came back, as it was.

`python -m benchmarks.load.echo PORT TARGET CONNECTIONS SECONDS` prints an outcome.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import cast

import uvloop

from benchmarks.frames import PAYLOAD_BYTES, PLAIN_BYTES, accept, masked, plain
from benchmarks.load.outcome import Outcome, percentile
from benchmarks.requests import HOST

_VARIANTS = 64
_GRACE_S = 10.0
_KEY = base64.b64encode(b"sixteen bytes ok")
_PAYLOADS = [f"{number:>{PAYLOAD_BYTES}}".encode("ascii") for number in range(_VARIANTS)]
_FRAMES = [
    (masked(payload, bytes((number, 7, 91, 205))), plain(payload))
    for number, payload in enumerate(_PAYLOADS)
]


def run(port: int, target: str, *, connections: int, seconds: float) -> Outcome:
    """Send messages from a process of its own; raises RuntimeError if it fails."""
    words = [str(port), target, str(connections), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load.echo", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 2 * _GRACE_S,
    )
    if done.returncode:
        raise RuntimeError(f"WebSocket clients: {done.stderr[-1000:]}")
    return Outcome.read(done.stdout)


@dataclass(slots=True)
class _Tally:
    open: int = 0
    wrong: int = 0
    is_over: bool = False
    took_s: list[float] = field(default_factory=list)


class _Client(asyncio.Protocol):
    """One connection; what it gets wrong ends it."""

    def __init__(self, target: str, tally: _Tally, first: int) -> None:
        self._target = target
        self._tally = tally
        self._next = first
        self._received = b""
        self._is_open = False
        self._sent_at_s = 0.0
        self._expected = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not derived from it
        self._transport.write(
            f"GET {self._target} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {_KEY.decode('ascii')}\r\n\r\n".encode("ascii")
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_open:
            self._open()
        elif len(self._received) >= PLAIN_BYTES:
            self._came_back()

    def _open(self) -> None:
        head, found, _ = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 101") or accept(_KEY) not in head:
            self._fail()
            return
        self._is_open = True
        self._tally.open += 1
        self._received = b""
        self._send()

    def _send(self) -> None:
        frame, self._expected = _FRAMES[self._next % _VARIANTS]
        self._next += 1
        self._sent_at_s = time.perf_counter()
        self._transport.write(frame)

    def _came_back(self) -> None:
        if self._received != self._expected:
            self._fail()
            return
        self._tally.took_s.append(time.perf_counter() - self._sent_at_s)
        self._received = b""
        if not self._tally.is_over:
            self._send()

    def _fail(self) -> None:
        self._tally.wrong += 1
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.wrong += not self._tally.is_over
        del exc


async def _ask(port: int, target: str, connections: int, seconds: float) -> Outcome:
    loop, tally = asyncio.get_running_loop(), _Tally()
    opened = [
        await loop.create_connection(
            lambda first=number: _Client(target, tally, first),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        for number in range(connections)
    ]
    started_s = time.perf_counter()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - started_s
    tally.is_over = True
    for transport, _ in opened:
        transport.abort()
    ordered = sorted(tally.took_s) or [0.0]
    return Outcome(
        count=len(tally.took_s),
        seconds=took_s,
        wrong=tally.wrong + connections - tally.open,
        p50_us=percentile(ordered, 50) * 1e6,
        p99_us=percentile(ordered, 99) * 1e6,
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(
            _ask(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
        )
    print(outcome)
