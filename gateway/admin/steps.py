"""Work for a page of the admin port, cut into steps, so that requests get their turns between them.

A page may show thousands of instances, which takes longer than anybody should wait. What makes it
is a generator that yields now and then and returns what it has made; whoever drives it decides how
many steps there are in one turn of the loop. One page is made at a time, and whoever asks for it
while it is being made gets the same: however many ask, one step is all that a turn has of them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, TypeVar

S = TypeVar("S")
T = TypeVar("T")

Steps = Generator[None, None, T]

# So long pages may hold others up in one turn of the loop.
_SHARE_S: Final = 0.002
_ITEMS_A_STEP: Final = 16
_PIECES_A_STEP: Final = 256
_JSON: Final = json.JSONEncoder(indent=2)


def mapped(items: Iterable[S], make: Callable[[S], T]) -> Steps[list[T]]:
    """Make a list of what `make` makes of each item."""
    made: list[T] = []
    for count, item in enumerate(items):
        if count % _ITEMS_A_STEP == _ITEMS_A_STEP - 1:
            yield
        made.append(make(item))
    return made


def written(content: Any) -> Steps[bytes]:
    """Write plain values as JSON, for people too."""
    pieces: list[str] = []
    for count, piece in enumerate(_JSON.iterencode(content)):
        if count % _PIECES_A_STEP == _PIECES_A_STEP - 1:
            yield
        pieces.append(piece)
    return "".join(pieces).encode() + b"\n"


def all_at_once(steps: Steps[T]) -> T:
    """Take all steps now; return what they make."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made


async def paced(steps: Steps[T], clock: Callable[[], float] = time.perf_counter) -> T:
    """Take the steps, some of them in each turn of the loop; return what they make."""
    until_s = clock() + _SHARE_S
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made
        if clock() >= until_s:
            await asyncio.sleep(0)
            until_s = clock() + _SHARE_S


class Pages:
    """The pages that are being made; who asks first makes one, and the others wait."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._making: dict[str, asyncio.Future[bytes | None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def make(self, name: str, begin: Callable[[], Steps[Any]]) -> bytes:
        """Make a page as JSON, or wait for the one of this name that is being made."""
        while (making := self._making.get(name)) is not None:
            page = await asyncio.shield(making)
            if page is not None:
                return page
        return await self._make(name, begin)

    async def _make(self, name: str, begin: Callable[[], Steps[Any]]) -> bytes:
        making = self._making[name] = asyncio.get_running_loop().create_future()
        page: bytes | None = None
        try:
            async with self._one_at_a_time:
                content = await paced(begin(), self._clock)
                page = await paced(written(content), self._clock)
            return page
        finally:
            del self._making[name]
            making.set_result(page)  # None: whoever made it left, and another one begins anew
