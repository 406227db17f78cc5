"""Clients that never stop asking while something else happens, and what each of them saw.

The rule: a connection that ends where it should not is seen as an error and nothing is sent twice,
so "no errors" means that nobody noticed anything.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11

from tests.fakes.client import BrokenOffError, RawClient
from tests.fakes.waiting import wait_until

_PAUSE_S = 0.001  # room on the loop for what the traffic is there to observe
_FAILURES = (BrokenOffError, OSError, TimeoutError, h11.RemoteProtocolError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One answer, and when its request was sent (monotonic)."""

    sent_at_s: float
    status: int
    body: bytes


@dataclass(slots=True)
class Traffic:
    """All that the clients saw so far, in the order in which it ended."""

    answers: list[Seen] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """How often each status came."""
        return Counter(answer.status for answer in self.answers)

    def bodies(self, *, since_s: float = 0.0) -> Counter[bytes]:
        """How often each body came to requests that were sent after `since_s`."""
        return Counter(one.body for one in self.answers if one.sent_at_s >= since_s)

    async def wait_for_more(self, count: int) -> float:
        """Wait until so many requests were sent and answered from now on; return since when."""
        since_s = time.monotonic()
        await wait_until(lambda: self.bodies(since_s=since_s).total() >= count)
        return since_s


@asynccontextmanager
async def steady(port: int, request: bytes, *, clients: int = 4) -> AsyncIterator[Traffic]:
    """Let each of so many clients send `request` again and again while the block lasts."""
    traffic = Traffic()
    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(_ask_on_and_on(port, request, traffic, is_over))
        try:
            yield traffic
        finally:
            is_over.set()


async def _ask_on_and_on(
    port: int, request: bytes, traffic: Traffic, is_over: asyncio.Event
) -> None:
    while not is_over.is_set():
        try:
            async with RawClient(port) as client:
                while not is_over.is_set():
                    sent_at_s = time.monotonic()
                    await client.send(request)
                    answer = await client.read_response()
                    seen = Seen(sent_at_s=sent_at_s, status=answer.status, body=answer.body)
                    traffic.answers.append(seen)
                    await asyncio.sleep(_PAUSE_S)
        except _FAILURES as failure:
            traffic.errors.append(repr(failure))
            await asyncio.sleep(_PAUSE_S)


def last_from(answers: Sequence[Seen], body: bytes) -> float:
    """Tell when the last request was sent that was answered with this body (monotonic)."""
    return max(answer.sent_at_s for answer in answers if answer.body == body)
