"""Who is at the other end of a client's connection, and whether it is believed.

Only a peer whose address is in `trusted_proxies` may tell who stands behind it; from everybody else
such fields are dropped, and so is what the PROXY protocol says.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network

from gateway.core.peer import Listener, Peer, TrustedProxies
from gateway.edge.certificate import told_of
from gateway.edge.proxy_protocol import Told

_KNOWN_PEERS = 4096


class Peers:
    """Makes Peers, and remembers those of late.

    `tells_forwarded` says whether instances get Forwarded beside the X-Forwarded fields.
    """

    def __init__(
        self,
        trusted_proxies: tuple[IPv4Network | IPv6Network, ...],
        *,
        tells_forwarded: bool = False,
    ) -> None:
        self._proxies = TrustedProxies(trusted_proxies)
        self._tells_forwarded = tells_forwarded
        self.peer = lru_cache(_KNOWN_PEERS)(self._make)

    def of(self, transport: asyncio.BaseTransport, told: Told | None = None) -> Peer:
        """Make the Peer of a connection; `told` is what came before its first byte, if anything."""
        address = _socket_name(transport, "peername")[0]
        port = _socket_name(transport, "sockname")[1]
        scheme = "http" if transport.get_extra_info("ssl_object") is None else "https"
        certificate = told_of(transport.get_extra_info("peercert"))
        peer = self.at(address, scheme, port, told)
        return _with_certificate(peer, certificate) if certificate else peer

    def at(self, address: str, scheme: str, port: int, told: Told | None = None) -> Peer:
        """Make the Peer of a socket's address; `port` is the one of ours that it came to."""
        if told is None:
            return self.peer(address, scheme, port)
        if told.address and self._proxies.trusts(address):
            return self.peer(told.address, scheme, told.port or port)
        # It speaks through a proxy that does not say who it is; it cannot be believed.
        return Peer(
            address.encode("latin-1"),
            scheme.encode("latin-1"),
            is_trusted=False,
            listener=self._listener(port),
        )

    def _make(self, address: str, scheme: str, port: int = 0) -> Peer:
        written, is_trusted = self._proxies.read(address) or (address.encode("latin-1"), False)
        return Peer(
            written,
            scheme.encode("latin-1"),
            is_trusted=is_trusted,
            listener=self._listener(port),
        )

    def _listener(self, port: int) -> Listener:
        return Listener(port=port, proxies=self._proxies, tells_forwarded=self._tells_forwarded)


def _socket_name(transport: asyncio.BaseTransport, which: str) -> tuple[str, int]:
    """Give the address and port of one end; a Unix socket has neither."""
    name = transport.get_extra_info(which)
    return (name[0], name[1]) if isinstance(name, tuple) else ("", 0)


def _with_certificate(peer: Peer, certificate: bytes) -> Peer:
    return Peer(
        peer.address,
        peer.scheme,
        is_trusted=peer.is_trusted,
        certificate=certificate,
        listener=peer.listener,
    )
