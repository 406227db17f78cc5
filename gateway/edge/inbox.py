"""A request's body between a connection that is read and an app that asks for it.

It holds what came and was not asked for yet. The one rule: whoever reads the client looks at
`is_full` and stops there, so it never holds much more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.edge.asgi import Message

_FULL_BYTES = 64 * 1024


class Inbox:
    """What an app receives of one request; several may wait for it at a time."""

    def __init__(self, *, is_whole: bool) -> None:
        self._body = bytearray()  # joined: a list would hold many times as much of tiny pieces
        self._is_whole = is_whole
        self._is_told_whole = False
        self._is_left = False
        self._waiting_count = 0
        self._moved = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Inbox {len(self._body)} bytes, {'whole' if self._is_whole else 'more to come'}>"

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read of the client for now."""
        return len(self._body) >= _FULL_BYTES

    @property
    def is_awaited(self) -> bool:
        """Whether the app waits for more of the body, and the client has to send it."""
        return self._waiting_count > 0 and not self._is_whole

    def put(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        self._body += chunk
        self._moved.set()

    def end(self) -> None:
        """Hear that the body is whole."""
        self._is_whole = True
        self._moved.set()

    def leave(self) -> None:
        """Hear that nobody is there any more to be answered; what was not asked for is dropped."""
        self._is_left = True
        self._drop()
        self._moved.set()

    async def next(self, on_wait: Callable[[], None]) -> Message:
        """Give the next message for the app; `on_wait` hears of it if it has to wait."""
        while (message := self._take()) is None:
            self._moved.clear()
            self._waiting_count += 1
            try:
                on_wait()
                await self._moved.wait()
            finally:
                self._waiting_count -= 1
        return message

    def _take(self) -> Message | None:
        if self._is_left:
            return {"type": "http.disconnect"}
        if self._is_told_whole or not (self._body or self._is_whole):
            return None
        body = bytes(self._body)
        self._drop()
        self._is_told_whole = self._is_whole
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    def _drop(self) -> None:
        self._body = bytearray()
