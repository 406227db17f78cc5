"""Who is at the other end of a client's connection, and whether it is believed.

Only a peer whose address is in `trusted_proxies` may tell who stands behind it; from everybody else
such fields are dropped.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from gateway.core.message import Peer

_KNOWN_PEERS = 4096


class Peers:
    """Makes Peers, and remembers those of late."""

    def __init__(self, trusted_proxies: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._trusted = trusted_proxies
        self.peer = lru_cache(_KNOWN_PEERS)(self._make)

    def _make(self, address: str, scheme: str) -> Peer:
        return Peer(
            address.encode("latin-1"),
            scheme.encode("latin-1"),
            is_trusted=bool(self._trusted) and self._is_trusted(address),
        )

    def _is_trusted(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:  # a Unix socket, or a test client's made-up name
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)
