"""Under which names the admin port answers: a page of another site must not read it.

A browser inside the network that resolves `evil.example` to 127.0.0.1 (DNS rebinding) asks with
that name in Host, and would let the page of `evil.example` read what comes back. Addresses and
`localhost` cannot be rebound; other names have to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from starlette.responses import Response

Refuse = Callable[[int, str], Response]


class OwnNamesOnly:
    """An ASGI app that answers only under addresses, `localhost` and `names`.

    `refuse` makes the response for others of a status and a detail.
    """

    def __init__(self, app: Any, names: Collection[str], refuse: Refuse) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._refuse = refuse

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope; a request without Host, which no browser sends, is let pass."""
        hosts = [value for name, value in scope.get("headers", ()) if name == b"host"]
        if all(self._is_ours(one.decode("latin-1")) for one in hosts):
            await self._app(scope, receive, send)
            return
        detail = (
            "the admin port answers under addresses, localhost and the names in "
            "GATEWAY_ADMIN_HOSTS: ask by address, or add the name that Host has if it is yours"
        )
        await self._refuse(HTTPStatus.MISDIRECTED_REQUEST, detail)(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).lower().rstrip(".")
        is_local = name == "localhost" or name.endswith(".localhost")  # RFC 6761 §6.3
        return is_local or name in self._names or _is_address(name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
