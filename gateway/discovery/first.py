"""The start: waiting until every service has been heard of once.

The one rule: it waits for what a registry says, whatever that is, and never longer than it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from gateway.core.model import Snapshot

_log = structlog.get_logger()


class FirstSnapshots:
    """Which services are still without a first Snapshot."""

    def __init__(self, services: Iterable[str]) -> None:
        self._missing = set(services)
        self._all_heard = asyncio.Event()
        self._look()

    def __repr__(self) -> str:
        return f"<FirstSnapshots missing={len(self._missing)}>"

    def follow(self, snapshot: Snapshot) -> None:
        """Hear of a Snapshot."""
        self._missing.discard(snapshot.service)
        self._look()

    async def wait(self, within_s: float) -> None:
        """Wait until all have been heard of; log who is missing when the time is over."""
        try:
            async with asyncio.timeout(within_s):
                await self._all_heard.wait()
        except TimeoutError:
            _log.warning(
                "start_not_awaited", waited_s=within_s, missing_snapshots=sorted(self._missing)
            )

    def _look(self) -> None:
        if not self._missing:
            self._all_heard.set()
