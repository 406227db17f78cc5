"""A load driver: many requests over kept-alive connections, and what became of each of them.

The rule: nothing is sent twice. A connection that dies under a request is an error of that request,
so "no errors" means that no client saw one. It is written on plain streams because a client library
would cost more than the gateway that it drives; RawClient is the strict reader.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from urllib.parse import urlsplit

from tests.fakes.waiting import PATIENCE_S

MAX_HEAD_BYTES = 1024 * 1024
MAY_FAIL_WITH = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One request of a load: what came back, or the `error` in words."""

    number: int
    status: int | None
    body: bytes
    error: str | None
    latency_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load, in the order of the requests' numbers."""

    shots: tuple[Shot, ...]

    @property
    def statuses(self) -> Counter[int]:
        """How often each status came."""
        return Counter(shot.status for shot in self.shots if shot.status is not None)

    @property
    def bodies(self) -> Counter[bytes]:
        """How often each body came."""
        return Counter(shot.body for shot in self.shots if shot.error is None)

    @property
    def errors(self) -> list[str]:
        """What went wrong, in words; empty when every request was answered whole."""
        return [f"{shot.number}: {shot.error}" for shot in self.shots if shot.error is not None]

    def latency_s(self, quantile: float) -> float:
        """Tell the latency that this share of the requests did not exceed."""
        ordered = sorted(shot.latency_s for shot in self.shots)
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]


async def hammer(
    url: str,
    *,
    total: int,
    concurrency: int = 16,
    make_request: Callable[[int], bytes] | None = None,
    timeout_s: float = PATIENCE_S,
) -> Load:
    """Send `total` GETs over `concurrency` kept-alive connections, or what `make_request` makes.

    `make_request` is given the request's number. Nothing is sent twice: a connection that dies
    under a request is an error of that request. TimeoutError when all of it takes too long.
    """
    split = urlsplit(url)
    if split.hostname is None or split.port is None:
        raise ValueError(f"the URL needs a host and a port: {url}")
    target = split._replace(scheme="", netloc="", path=split.path or "/").geturl()
    get = f"GET {target} HTTP/1.1\r\nHost: {split.netloc}\r\n\r\n".encode()
    numbers = iter(range(total))
    async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
        lanes = [
            tasks.create_task(
                _Lane(split.hostname, split.port).run(numbers, make_request or (lambda _: get))
            )
            for _ in range(min(concurrency, total))
        ]
    shots = [shot for lane in lanes for shot in lane.result()]
    return Load(tuple(sorted(shots, key=lambda shot: shot.number)))


class _Lane:
    """One of the connections of a load; opened anew when the other side has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, numbers: Iterator[int], make_request: Callable[[int], bytes]) -> list[Shot]:
        try:
            return [await self._shoot(number, make_request(number)) for number in numbers]
        finally:
            await self._close()

    async def _shoot(self, number: int, request: bytes) -> Shot:
        started_at_s = perf_counter()
        status, body, error = None, b"", None
        try:
            status, body = await self._ask(request)
        except MAY_FAIL_WITH as failure:
            error = repr(failure)
            await self._close()
        return Shot(
            number=number,
            status=status,
            body=body,
            error=error,
            latency_s=perf_counter() - started_at_s,
        )

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                self._host, self._port, limit=MAX_HEAD_BYTES
            )
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        status, fields = await _read_head(reader)
        has_body = not request.startswith(b"HEAD ") and status not in {204, 304}
        body = await _read_body(reader, fields) if has_body else b""
        asked_to_close = fields.get(b"connection", b"").lower() == b"close"
        if asked_to_close or (has_body and _ends_with_the_connection(fields)):
            await self._close()
        return status, body

    async def _close(self) -> None:
        if self._streams is None:
            return
        _, writer = self._streams
        self._streams = None
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            return  # It was broken already; the request that met it has said so.


def _ends_with_the_connection(fields: dict[bytes, bytes]) -> bool:
    return b"content-length" not in fields and b"transfer-encoding" not in fields


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    fields = dict(line.split(b":", 1) for line in lines[1:] if line)
    status = int(lines[0].split(b" ", 2)[1])
    return status, {name.lower(): value.strip() for name, value in fields.items()}


async def _read_body(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> bytes:
    if _ends_with_the_connection(fields):
        return await reader.read()
    if b"transfer-encoding" not in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    body = b""
    while size_bytes := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size_bytes + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body
