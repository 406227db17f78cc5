"""Addresses as people write them in settings: where to listen, where Consul is, whom to trust.

Each reader takes a text and gives a value, or raises ValueError with what to write instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

MAX_PORT = 65_535
# A name, an IPv4 or an IPv6 address with its zone, of an instance. What else stood here would end
# up in a Host field or in a URL.
is_instance_host = re.compile(r"[A-Za-z0-9._:%-]+").fullmatch


# Behind // whatever stands before an @; elsewhere only what has a password.
_USER = re.compile(r"((?<=//)|(?<![^\s'\"])(?=[^\s'\"/@]*:))[^\s'\"/@]+@")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: `host` is a name or an address without brackets, port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Read `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`."""
    if "://" in text:
        bare = text.partition("://")[2].partition("/")[0]
        raise ValueError(f"{text!r} is not an address to listen on; write {bare}")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError(f"{text!r} is not an address to listen on; write 127.0.0.1:8080")
    if not host:
        raise ValueError(f"{text!r} names no address; write 0.0.0.0{text} or [::]{text} for all")
    name = host.removeprefix("[").removesuffix("]")
    if (":" in name) != (host == f"[{name}]"):
        raise ValueError(f"{text!r} is not an address to listen on; write IPv6 as [::1]:8080")
    return ListenAddress(name, int(port))


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read `10.0.0.0/8, ::1`: networks or single addresses, with commas between them."""
    return tuple(_network(part) for part in re.split(r"[,\s]+", text) if part)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network; write {_meant(text)}") from error


def _meant(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return "networks as in 10.0.0.0/8, ::1"


def without_password(text: str) -> str:
    """Leave out what stands before an `@` in an address, for messages."""
    return _USER.sub(r"\1***@", text)


def consul_url(text: str) -> str:
    """Read an address of Consul as its tools do: `host:port`, a URL, or `unix:///path`.

    A name without a port is refused: Consul's tools ask its port 80 then, which nobody means.
    """
    if text.startswith("unix:///"):
        return text
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        has_port = parts.port is not None
    except ValueError as error:
        message = f"{text!r} is not an address of Consul; write 127.0.0.1:8500"
        raise ValueError(message) from error
    if parts.username is not None:
        raise ValueError("an address of Consul cannot hold a password; use a token")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(
            f"{text!r} is not an address of Consul; "
            "write 127.0.0.1:8500, https://consul.example.com or unix:///path"
        )
    if url != text and not has_port:
        raise ValueError(f"{text!r} has no port; write {text}:8500")
    return url.rstrip("/")
