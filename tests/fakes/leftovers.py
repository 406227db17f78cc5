"""What a gateway holds, counted: to say that after many faults it holds no more than before them.

The rule: nothing is estimated. Open files are those of this process, so both ends of a connection
are seen; objects are found by the garbage collector, so it does not matter who forgot to let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import gateway as package
from gateway.edge.protocol import ClientConnection
from gateway.proxy.exchange import Exchange
from gateway.proxy.upload import Upload
from gateway.proxy.upstream import UpstreamConnection
from tests.fakes.gateway import RunningGateway
from tests.fakes.waiting import PATIENCE_S

_COUNTED = (Exchange, Upload, ClientConnection, UpstreamConnection)
_OURS = f"{Path(package.__file__).parent}/*"
_TIMES = 100
_MOST_BYTES = 32 * 1024  # tables grow by steps, and some keep a few things to be used again


@dataclass(frozen=True, slots=True)
class Held:
    """What is there at one moment."""

    open_files: int
    tasks: int
    watched: int
    in_flight: int
    connecting: int
    exchanges: int
    uploads: int
    clients: int
    instances: int


async def expect_nothing_left(
    gateway: RunningGateway, once: Callable[[], Awaitable[object]], *, at_once: int = 50
) -> None:
    """Let the same happen a hundred times, and count what is left of it.

    The first rounds go uncounted: tables, and what Python itself keeps to be used again, grow to
    the size that is needed where one round meets the next.
    """
    for _ in range(3):
        await asyncio.gather(*(once() for _ in range(at_once)))
    async with Leftovers(gateway) as leftovers:
        for _ in range(_TIMES // at_once):
            await asyncio.gather(*(once() for _ in range(at_once)))
        await leftovers.expect_none(_TIMES)


class Leftovers:
    """Counts what is held now, and again when a test asks; idle connections are closed first."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    async def __aenter__(self) -> Self:
        gc.freeze()  # what is there already need not be looked at each time
        self._before = await self._settled()
        tracemalloc.start()
        self._memory_before = _memory_of_ours()
        return self

    async def __aexit__(self, *_: object) -> None:
        tracemalloc.stop()
        gc.unfreeze()

    async def expect_none(self, times: int) -> None:
        """Fail if there is more than at the beginning, soon, after so many times the same.

        A line of the gateway that holds one object more for each other time has forgotten it.
        """
        held = await self._settled(self._before)
        assert _is_no_more(held, self._before), _difference(self._before, held)
        grown = _memory_of_ours().compare_to(self._memory_before, "lineno")
        kept = [str(line) for line in grown if line.count_diff >= times / 2]
        assert kept == [], "\n".join(kept)
        assert sum(line.size_diff for line in grown) < _MOST_BYTES, "\n".join(map(str, grown[:10]))

    async def _settled(self, expected: Held | None = None) -> Held:
        """Look until it is no more than expected, or nothing is in hand and nothing changes."""
        last = self._look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while expected is None or not _is_no_more(last, expected):
                    # What is let go now is closed in the next turns of the loop.
                    await asyncio.sleep(0.05)
                    before, last = last, self._look()
                    is_still = last == before and not last.in_flight
                    expected = expected or (last if is_still else None)
        return last

    def _look(self) -> Held:
        for pool in self._gateway.pools:
            for connection in tuple(pool._idle):
                connection.abort()
        gc.collect()
        kinds = [type(one) for one in gc.get_objects()]
        exchanges, uploads, clients, instances = (kinds.count(kind) for kind in _COUNTED)
        return Held(
            open_files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 -- names are enough
            tasks=len(asyncio.all_tasks()),
            watched=len(self._gateway.gateway.deadlines.watched),
            in_flight=self._gateway.in_flight_count,
            connecting=sum(len(pool._connecting) for pool in self._gateway.pools),
            exchanges=exchanges,
            uploads=uploads,
            clients=clients,
            instances=instances,
        )


def _is_no_more(held: Held, before: Held) -> bool:
    was = asdict(before)
    return all(count <= was[name] for name, count in asdict(held).items())


def _difference(before: Held, after: Held) -> str:
    was, now = asdict(before), asdict(after)
    return ", ".join(
        f"{name}: {was[name]} -> {now[name]}" for name in was if was[name] != now[name]
    )


def _memory_of_ours() -> tracemalloc.Snapshot:
    """Look at the memory in use that lines of the gateway have asked for."""
    gc.collect()
    ours = tracemalloc.Filter(inclusive=True, filename_pattern=_OURS)
    return tracemalloc.take_snapshot().filter_traces([ours])
