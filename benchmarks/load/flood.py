"""One peer floods, and somebody else asks for a small answer and looks how long it takes.

`python -m benchmarks.load.flood PORT NAME SECONDS [AUTHORITY]` prints an outcome; with the file of
an authority both go over TLS. What is counted are the small answers.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.floods import FLOODS, Flood
from benchmarks.layout import LOOPBACK, prefix
from benchmarks.load.outcome import Outcome, percentile
from benchmarks.requests import HOST

_GRACE_S = 40.0
_LONGEST_WAIT_S = 30.0
_EVERY_S = 0.005
_LOOK_EVERY_S = 0.05
_SETTLE_S = 0.3
_AT_ONCE_BYTES = 1_048_576
_SWITCH_EVERY_S = 0.0005
_ASK = f"GET {prefix('users')}/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode("ascii")


def run(port: int, name: str, *, seconds: float, authority: Path | None) -> Outcome:
    """Flood and ask from a process of its own; raises RuntimeError if it fails."""
    words = [str(port), name, str(seconds), *([] if authority is None else [str(authority)])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load.flood", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + _GRACE_S,
    )
    if done.returncode:
        raise RuntimeError(f"flood {name!r}: {done.stderr[-1000:]}")
    return Outcome.read(done.stdout)


@dataclass(frozen=True, slots=True)
class Where:
    """A port of this machine, and whom to trust there; None for no TLS."""

    port: int
    trusting: ssl.SSLContext | None

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """Connect; what is read and written may take half a minute."""
        with contextlib.ExitStack() as opened:
            plain = socket.create_connection((LOOPBACK, self.port), _LONGEST_WAIT_S)
            opened.enter_context(plain)
            if self.trusting is None:
                yield plain
                return
            secured = self.trusting.wrap_socket(plain, server_hostname="localhost")
            yield opened.enter_context(secured)


class Flooding(threading.Thread):
    """The one who floods, until it is told to stop. `sent_bytes` and `read_bytes` go up."""

    def __init__(self, where: Where, flood: Flood) -> None:
        super().__init__(daemon=True)
        self._where = where
        self._flood = flood
        self._is_over = False
        self.sent_bytes = 0
        self.read_bytes = 0

    def run(self) -> None:
        """Flood over one connection after the other."""
        while not self._is_over:
            with contextlib.suppress(OSError), self._where.connection() as sock:
                sock.sendall(self._flood.start)
                sock.setblocking(False)  # noqa: FBT003 -- as it is called
                self._pour(sock)

    def stop(self) -> None:
        """Stop soon."""
        self._is_over = True

    def _pour(self, sock: socket.socket) -> None:
        """Send and read as much as goes, until the connection ends."""
        piece, rest = self._flood.piece, memoryview(b"")
        wants_write = [sock] if piece else []
        while not self._is_over:
            readable, writable, _ = select.select([sock], wants_write, [], _LOOK_EVERY_S)
            if writable:
                rest = rest or memoryview(piece)
                rest = rest[self._send(sock, rest) :]
            if readable and not self._read(sock):
                return

    def _send(self, sock: socket.socket, rest: memoryview) -> int:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = sock.send(rest)
            self.sent_bytes += sent
            return sent
        return 0

    def _read(self, sock: socket.socket) -> bool:
        """Read and drop what is there; False at the end."""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            size_bytes = len(sock.recv(_AT_ONCE_BYTES))
            self.read_bytes += size_bytes
            return size_bytes > 0
        return True


@dataclass(slots=True)
class Asking:
    """One who asks for small answers. `took_s` is how long each took, `wrong` counts all others."""

    where: Where
    took_s: list[float] = field(default_factory=list)
    wrong: int = 0

    def run(self, seconds: float) -> None:
        """Ask for so long, over another connection when one ends; at least once."""
        until_s, is_first = time.monotonic() + seconds, True
        while is_first or time.monotonic() < until_s:
            is_first = False
            try:
                with self.where.connection() as sock:
                    self._ask_on(sock, until_s)
            except (OSError, ValueError):
                self.wrong += 1
                time.sleep(_EVERY_S)

    def _ask_on(self, sock: socket.socket, until_s: float) -> None:
        while True:
            started_s = time.perf_counter()
            sock.sendall(_ASK)
            _read_answer(sock)
            self.took_s.append(time.perf_counter() - started_s)
            if time.monotonic() >= until_s:
                return
            time.sleep(_EVERY_S)


def _read_answer(sock: socket.socket) -> None:
    """Read one answer whose length is told; raises ValueError for another one, and OSError."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := sock.recv(65_536)):
            raise ConnectionError("closed without an answer")
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    lowered = head.lower()
    if not lowered.startswith(b"http/1.1 200"):
        raise ValueError(f"the answer was {head[:100]!r}")
    length = int(lowered.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        if not (data := sock.recv(65_536)):
            raise ConnectionError("closed within an answer")
        body += data


def _load(port: int, name: str, seconds: float, authority: str | None) -> Outcome:
    trusting = None if authority is None else ssl.create_default_context(cafile=authority)
    where = Where(port, trusting)
    flooding, asking = Flooding(where, FLOODS[name]), Asking(where)
    started_s = time.perf_counter()
    flooding.start()
    time.sleep(_SETTLE_S)
    asking.run(seconds)
    elapsed_s = time.perf_counter() - started_s
    flooding.stop()
    ordered = sorted(asking.took_s) or [_LONGEST_WAIT_S]
    return Outcome(
        count=len(asking.took_s),
        seconds=elapsed_s,
        wrong=asking.wrong,
        bytes=flooding.sent_bytes + flooding.read_bytes,
        p50_us=percentile(ordered, 50) * 1e6,
        p99_us=percentile(ordered, 99) * 1e6,
        longest_us=ordered[-1] * 1e6,
    )


if __name__ == "__main__":
    sys.setswitchinterval(_SWITCH_EVERY_S)  # the one who asks must not wait for the one who floods
    print(_load(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), next(iter(sys.argv[4:]), None)))
