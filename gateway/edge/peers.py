"""Who is at the other end of a client's connection, and whether it is believed.

Only a peer whose address is in `trusted_proxies` may tell who stands behind it; from everybody else
such fields are dropped, and so is what the PROXY protocol says.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from gateway.core.message import Peer
from gateway.edge.certificate import told_of
from gateway.edge.proxy_protocol import Told

_KNOWN_PEERS = 4096


class Peers:
    """Makes Peers, and remembers those of late."""

    def __init__(self, trusted_proxies: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._trusted = trusted_proxies
        self.peer = lru_cache(_KNOWN_PEERS)(self._make)

    def of(self, transport: asyncio.BaseTransport, told: Told | None = None) -> Peer:
        """Make the Peer of a connection; `told` is what came before its first byte, if anything."""
        name = transport.get_extra_info("peername")
        address = name[0] if isinstance(name, tuple) else ""
        scheme = "http" if transport.get_extra_info("ssl_object") is None else "https"
        certificate = told_of(transport.get_extra_info("peercert"))
        peer = self.peer(address, scheme) if told is None else self._of_told(address, scheme, told)
        if not certificate:
            return peer
        return Peer(peer.address, peer.scheme, is_trusted=peer.is_trusted, certificate=certificate)

    def _of_told(self, address: str, scheme: str, told: Told) -> Peer:
        if told.address and self.trusts(address):
            return self.peer(told.address, scheme)
        # Whoever it is, it speaks through a proxy that does not say who; it cannot be believed.
        return Peer(address.encode("latin-1"), scheme.encode("latin-1"), is_trusted=False)

    def _make(self, address: str, scheme: str) -> Peer:
        return Peer(
            address.encode("latin-1"),
            scheme.encode("latin-1"),
            is_trusted=bool(self._trusted) and self.trusts(address),
        )

    def trusts(self, text: str) -> bool:
        """Tell whether this address is one of a proxy that is believed."""
        try:
            address = ip_address(text)
        except ValueError:  # a Unix socket, or a test client's made-up name
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)
