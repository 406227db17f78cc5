"""Bodies of answers: read in pieces, counted, and bounded.

The one rule: what a registry sends costs what it sends. Nothing is decompressed, nothing is read
beyond its bound, and of the large bodies only a few are in memory at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from gateway.core.units import format_size
from gateway.core.watch import Trouble
from gateway.discovery.source import SourceError

MAX_ANSWER_BYTES = 64 * 1024 * 1024
LARGE_BYTES = 256 * 1024
_LARGE_AT_ONCE = 2
_ERROR_BYTES = 4 * 1024
_TURN_S = 0.002


class Bodies:
    """Reads bodies for all questions to one registry.

    `max_bytes` bounds each of them.
    """

    def __init__(self, *, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._max_bytes = max_bytes
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    @asynccontextmanager
    async def read(
        self, response: httpx.Response, within: asyncio.Timeout, timeout_s: float
    ) -> AsyncIterator[bytearray]:
        """Give the body of a streamed response for as long as the block lasts.

        A large one waits for its place, with `within` stopped meanwhile; from then on it has
        `timeout_s` to arrive. The time limit is off while the block runs. Of an error only the
        first 4 KiB are read. Raises SourceError for a body that is too large or encoded.
        """
        self._check_head(response)
        body = bytearray()
        async with AsyncExitStack() as place:
            turn_at_s = time.perf_counter() + _TURN_S
            async for piece in response.aiter_raw():
                if len(body) <= LARGE_BYTES < len(body) + len(piece):
                    within.reschedule(None)
                    await place.enter_async_context(self._large)
                    within.reschedule(asyncio.get_running_loop().time() + timeout_s)
                body += piece
                if not response.is_success and len(body) >= _ERROR_BYTES:
                    break
                if len(body) > self._max_bytes:
                    raise self._too_large()
                # An answer in tiny chunks is many pieces of a single read.
                if time.perf_counter() >= turn_at_s:
                    await asyncio.sleep(0)
                    turn_at_s = time.perf_counter() + _TURN_S
            within.reschedule(None)
            yield body

    def _check_head(self, response: httpx.Response) -> None:
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity"}:
            detail = f"an answer with Content-Encoding {encoding[:40]!r}, which was not asked for"
            raise SourceError(Trouble.PROTOCOL, detail)
        length = response.headers.get("content-length", "")
        if response.is_success and length.isdigit() and int(length) > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> SourceError:
        detail = f"an answer of more than {format_size(self._max_bytes)}"
        return SourceError(Trouble.TOO_LARGE, detail)
