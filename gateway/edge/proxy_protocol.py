"""The PROXY protocol, versions 1 and 2: who stands behind a proxy that passes bytes.

Such a proxy writes it once, in front of everything else on a connection. The one rule: a connection
begins with it exactly, or it is no such connection; nothing is guessed (haproxy.org,
doc/proxy-protocol.txt, §2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from gateway.core.addresses import MAX_PORT

# §2.2 wants senders to keep within 536; those that tell a certificate of the client do not.
MAX_SIZE_BYTES: Final = 4096

_V1_START: Final = b"PROXY "
_V1_MAX_SIZE_BYTES: Final = 107
_V1_LINE: Final = re.compile(
    rb"PROXY (?P<family>TCP4|TCP6) (?P<source>[0-9A-Fa-f:.]+) (?P<target>[0-9A-Fa-f:.]+)"
    rb" (?P<ports>(?:0|[1-9][0-9]{0,4}) (?:0|[1-9][0-9]{0,4}))"
)
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")

_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED_BYTES: Final = 16
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport (§2.2): how long the two addresses and ports are, and one address of them.
_V2_SIZES: Final[dict[int, tuple[int, int]]] = {
    0x00: (0, 0),
    0x11: (12, 4),
    0x12: (12, 0),
    0x21: (36, 16),
    0x22: (36, 0),
    0x31: (216, 0),
    0x32: (216, 0),
}


class ProxyProtocolError(ValueError):
    """A connection that does not begin with the PROXY protocol; says what is wrong."""


@dataclass(frozen=True, slots=True)
class Told:
    """What it said: the client's IP address as text, and the port that it asked for.

    The address is empty and the port 0 where it named none: for connections of the proxy's own
    (LOCAL), for unknown ones, and for those of other kinds than TCP. `size_bytes` is how long it
    was.
    """

    address: str
    size_bytes: int
    port: int = 0


def read_told(start: bytes) -> Told | None:
    """Read the start of a connection; None means that more of it is needed.

    Raises ProxyProtocolError as soon as it cannot become right any more.
    """
    if start[: len(_V2_START)] == _V2_START[: len(start)]:
        return _read_v2(start)
    if start[: len(_V1_START)] == _V1_START[: len(start)]:
        return _read_v1(start)
    raise ProxyProtocolError("it does not begin with the PROXY protocol")


def _read_v1(start: bytes) -> Told | None:
    line, ended, _ = start[:_V1_MAX_SIZE_BYTES].partition(b"\r\n")
    if not ended:
        if len(start) >= _V1_MAX_SIZE_BYTES:
            raise ProxyProtocolError("the line is too long")
        return None
    size_bytes = len(line) + len(ended)
    if _V1_UNKNOWN.fullmatch(line):
        return Told("", size_bytes)
    found = _V1_LINE.fullmatch(line)
    if found is None or any(int(port) > MAX_PORT for port in found["ports"].split()):
        raise ProxyProtocolError("the line is not one of version 1")
    kind = IPv4Address if found["family"] == b"TCP4" else IPv6Address
    try:
        source, _ = (kind(found[which].decode("ascii")) for which in ("source", "target"))
    except ValueError as error:
        raise ProxyProtocolError(str(error)) from error
    return Told(str(source), size_bytes, int(found["ports"].split()[1]))


def _read_v2(start: bytes) -> Told | None:
    if len(start) < _V2_FIXED_BYTES:
        return None
    command, family = start[12], start[13]
    size_bytes = _V2_FIXED_BYTES + int.from_bytes(start[14:_V2_FIXED_BYTES], "big")
    if command not in {_LOCAL, _PROXY} or size_bytes > MAX_SIZE_BYTES:
        raise ProxyProtocolError("it is not a command of version 2, or too long")
    if command == _LOCAL:
        return Told("", size_bytes) if len(start) >= size_bytes else None
    addresses_bytes, address_bytes = _V2_SIZES.get(family, (MAX_SIZE_BYTES, 0))
    if _V2_FIXED_BYTES + addresses_bytes > size_bytes:
        raise ProxyProtocolError("the addresses are of no known kind, or cut short")
    if len(start) < size_bytes:
        return None
    source = start[_V2_FIXED_BYTES : _V2_FIXED_BYTES + address_bytes]
    port = start[_V2_FIXED_BYTES + addresses_bytes - 2 :][:2] if source else b""
    return Told(_address(source), size_bytes, int.from_bytes(port, "big"))


def _address(packed: bytes) -> str:
    if not packed:
        return ""
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))  # noqa: PLR2004
