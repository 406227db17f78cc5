"""The clients of a registry, over names: what httpx does not do by itself.

httpx is given addresses, because it looks names up in shared threads: anyio, which connects for it,
uses the default executor of asyncio, where a lookup that hangs stops others, and asyncio.run waits
for it at the end. And a client is made anew after a request that was broken off, because httpcore
(1.0.9) can lose the place of its pool that the request had: when all are lost, those that follow
wait in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx

from gateway.names import NameLateError, Names

_CONNECT_S = 5.0


class RenewedClient:
    """A client that is made anew when one of its requests was broken off; `make` makes it."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self.client = make()

    async def begin_anew(self) -> None:
        """Go on with another client; requests that are in flight over this one fail."""
        before, self.client = self.client, self._make()
        await before.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self.client.aclose()


class NamedTransport(httpx.AsyncBaseTransport):
    """A transport that tries the addresses of a name one after the other.

    Each has its share of the time for connecting. Host and the name that a certificate is verified
    for stay as they are. `names` None leaves requests as they are.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, names: Names | None) -> None:
        self._inner = inner
        self._names = names

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises httpx.TransportError."""
        if self._names is None:
            return await self._inner.handle_async_request(request)
        url, limits = request.url, dict(request.extensions.get("timeout", {}))
        connect_s = limits.get("connect") or _CONNECT_S
        addresses = await self._addresses(url.host, connect_s / 2)
        limits["connect"] = connect_s / len(addresses)
        request.extensions = {**request.extensions, "timeout": limits, "sni_hostname": url.host}
        for address in addresses[:-1]:
            request.url = url.copy_with(host=address)
            try:
                return await self._inner.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        request.url = url.copy_with(host=addresses[-1])
        return await self._inner.handle_async_request(request)

    async def _addresses(self, host: str, within_s: float) -> Sequence[str]:
        assert self._names is not None
        try:
            return await self._names.addresses(host, within_s=within_s)
        except NameLateError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host}: {error}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
