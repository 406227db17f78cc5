"""Who is at the other end of a client's connection, and who stands behind it.

The one rule: only an address in `trusted_proxies` is believed, and a chain of addresses is read
from its right end, where each was written by a proxy that is believed; what stands further left
than the first that is not could be anybody's invention.

What instances are told of a peer stays the same for all its requests, so it is written once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_REMEMBERED: Final = 4096
# So many proxies stand behind one another nowhere, and each address that is new costs some time.
_MOST_HOPS: Final = 50
# IPv6 in brackets, with a zone and a port; what is longer is no address, and is not kept.
_LONGEST_ADDRESS: Final = 64
# With a port, as some proxies write them, and IPv6 in brackets (RFC 7239 §6).
_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^]]+)\](?::[0-9]{1,5})?|(?P<v4>[0-9.]+):[0-9]{1,5}")


class TrustedProxies:
    """The networks whose word counts; it remembers what it thought of addresses of late."""

    def __init__(self, networks: tuple[IPv4Network | IPv6Network, ...] = ()) -> None:
        self._networks = networks
        self.read = lru_cache(_REMEMBERED)(self._read)

    def __repr__(self) -> str:
        return f"<TrustedProxies {', '.join(map(str, self._networks)) or 'none'}>"

    def trusts(self, text: str) -> bool:
        """Tell whether this address is one of a proxy that is believed."""
        found = self.read(text)
        return found is not None and found[1]

    def client_behind(self, address: bytes, chain: bytes) -> bytes:
        """Find the client: the last of a chain that is not trusted, seen from this address.

        `chain` is X-Forwarded-For as the peer at `address` sent it. Where all are trusted the
        client is the first one, or the fiftieth from the right. An entry that is no address ends
        the walk before it. Where the peer has no address, the last entry stands for it, whatever
        that is.
        """
        client = address or chain.rpartition(b",")[2].strip(b" \t")
        for entry in reversed(chain.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
            text = entry.strip(" \t")
            found = self.read(text) if len(text) <= _LONGEST_ADDRESS else None
            if found is None:
                break
            client, is_trusted = found
            if not is_trusted:
                break
        return client

    def _read(self, text: str) -> tuple[bytes, bool] | None:
        """Read an address: how it is written, and whether it is trusted; None if it is none."""
        with_port = _WITH_PORT.fullmatch(text)
        if with_port is not None:
            text = with_port["v6"] or with_port["v4"]
        try:
            address = ip_address(text.partition("%")[0])  # zones mean something here alone
        except ValueError:  # a Unix socket, a test client's made-up name, "unknown"
            return None
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return str(address).encode("ascii"), any(address in one for one in self._networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where a client came in: what is the same for all who come in there.

    `port` is the port that clients ask for, 0 where there is none. `tells_forwarded` says whether
    instances get Forwarded beside the older fields.
    """

    port: int = 0
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    tells_forwarded: bool = False


ANY_LISTENER: Final = Listener()


class Peer:
    """Who is at the other end of a client's connection, known once for each connection.

    `address` is its IP address as text, empty if it has none (a Unix socket). `is_trusted` says
    whether what it tells of clients behind it is believed. `certificate` is what instances are told
    of the certificate that it has shown, empty if it has shown none. `lines` are the fields that
    all its requests have in common, and `forwarded` is its element of Forwarded
    but for the host, empty if that is not told.
    """

    __slots__ = (
        "address",
        "certificate",
        "forwarded",
        "is_trusted",
        "lines",
        "listener",
        "scheme",
    )

    def __init__(
        self,
        address: bytes,
        scheme: bytes,
        *,
        is_trusted: bool,
        certificate: bytes = b"",
        listener: Listener = ANY_LISTENER,
    ) -> None:
        self.address = address
        self.scheme = scheme
        self.is_trusted = is_trusted
        self.certificate = certificate
        self.listener = listener
        self.lines = _lines_of(self)
        self.forwarded = _element_of(self) if listener.tells_forwarded else b""

    def __repr__(self) -> str:
        word = "trusted" if self.is_trusted else "not trusted"
        return f"<Peer {self.scheme.decode()} {self.address.decode('latin-1')}, {word}>"

    def client_behind(self, chain: bytes) -> bytes:
        """Find the client, where `chain` is the X-Forwarded-For that this peer sent."""
        return self.listener.proxies.client_behind(self.address, chain)


def _lines_of(peer: Peer) -> bytes:
    """Write who asked by which way, for a peer behind which there is nobody."""
    lines = [b"\r\nX-Forwarded-Proto: %b" % peer.scheme]
    if peer.address:
        lines.insert(0, b"\r\nX-Forwarded-For: %b\r\nX-Real-Ip: %b" % (peer.address, peer.address))
    if peer.listener.port:
        lines.append(b"\r\nX-Forwarded-Port: %d" % peer.listener.port)
    if peer.certificate:
        lines.append(b"\r\nX-Forwarded-Client-Cert: %b" % peer.certificate)
    return b"".join(lines)


def _element_of(peer: Peer) -> bytes:
    """Write a peer as an element of Forwarded (RFC 7239 §4); IPv6 stands in quotes (§6)."""
    named = b'"[%b]"' if b":" in peer.address else b"%b"
    return b"for=%b;proto=%b" % (named % (peer.address or b"unknown"), peer.scheme)


UNKNOWN_PEER: Final = Peer(b"", b"http", is_trusted=False)
