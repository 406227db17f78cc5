"""Whether an empty answer of Consul is true, or only what our token may see.

Without the right to read nodes, or with no token where ACLs deny, Consul answers every health read
with `200 []`. What cannot be empty shows the difference: a Consul that has a leader knows at least
the machine that this one runs on, and its own service `consul`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.core.watch import Trouble
from gateway.discovery.source import SourceError

SEES_NOTHING = "Consul shows nothing to this token"
_NO_NODES = "Consul shows no node at all to this token"
_NO_SERVICES = "Consul shows no service at all to this token, not even its own"
_KEPT_S = 1.0


class Sight:
    """Finds out whether anything may be seen, for all services of a datacenter at once.

    `catalog` is that of python-consul2, over our transport.
    """

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog
        self._turn = asyncio.Lock()
        self._found: dict[str | None, tuple[float, str | None]] = {}

    def forget(self) -> None:
        """Find out anew: the token is another one."""
        self._found.clear()

    async def why_blind(self, datacenter: str | None) -> str | None:
        """Say why nothing can be seen; None when something can, or when that cannot be found out.

        What was found less than a second ago still holds.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            at_s, reason = self._found.get(datacenter, (float("-inf"), None))
            if loop.time() - at_s > _KEPT_S:
                reason = await self._look(datacenter)
                self._found[datacenter] = (loop.time(), reason)
            return reason

    async def _look(self, datacenter: str | None) -> str | None:
        if await self._is_empty(self._catalog.nodes(dc=datacenter), list):
            return _NO_NODES
        if await self._is_empty(self._catalog.services(dc=datacenter), dict):
            return _NO_SERVICES
        return None

    async def _is_empty(self, asking: Any, kind: type) -> bool:
        try:
            reply = await asking
        except SourceError as error:
            if error.trouble is Trouble.DENIED:
                raise
            return False  # too large, for one
        listed = reply.value[1]
        return isinstance(listed, kind) and not listed
