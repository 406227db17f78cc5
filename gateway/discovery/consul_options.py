"""Where Consul is, how it is asked, and which names it could know."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from gateway.core.units import is_one_word
from gateway.discovery.consul_answers import TaggedAddress

Consistency = Literal["default", "stale", "consistent"]

_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DATACENTER = re.compile(r"[A-Za-z0-9_-]+")
_SHORTEST_WAIT_S = 0.01
_LONGEST_WAIT_S = 600
_LONGEST_TOKEN_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulOptions:
    """Where Consul is and how it is asked.

    `address`: `host:port`, `http://…`, `https://…` or `unix:///path`. `token_file` is read anew for
    each request, so a rotated token holds at once; it goes before `token`. `datacenter` None is the
    agent's own. `wait_s` is how long a blocking query may wait: short ones are cheap, while an
    abandoned one holds its place in Consul until the wait is over. `grace_s` is how much later than
    promised an answer may come. `read_timeout_s` must exceed the 7.3 s for which an agent without a
    leader holds a plain read. `max_watches` bounds the long-lived connections (Consul's
    `http_max_conns_per_client` is 200 for all programs of a host together); further services are
    polled every `poll_s`. `max_stale_s` is how far a follower may lag with consistency `stale`.

    Raises ValueError at construction when `wait_s` is out of range.
    """

    address: str = "http://127.0.0.1:8500"
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    datacenter: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    verify: bool = True
    consistency: Consistency = "default"
    tagged_address: TaggedAddress | None = None
    wait_s: float = 30.0
    grace_s: float = 5.0
    connect_timeout_s: float = 2.0
    read_timeout_s: float = 10.0
    probe_timeout_s: float = 5.0
    max_stale_s: float = 5.0
    max_watches: int = 100
    poll_s: float = 5.0

    def __post_init__(self) -> None:
        # Consul takes a wait of 0 for its default of five minutes, and cuts a longer one than this.
        if not _SHORTEST_WAIT_S <= self.wait_s <= _LONGEST_WAIT_S:
            raise ValueError(f"wait_s must be between {_SHORTEST_WAIT_S} and {_LONGEST_WAIT_S}")


def is_service_name(name: str) -> bool:
    """Whether a name may go into a path of Consul's API: nothing in it can lead elsewhere."""
    return _SERVICE_NAME.fullmatch(name) is not None and ".." not in name


def is_datacenter(name: str) -> bool:
    """Whether Consul could have a datacenter of this name."""
    return _DATACENTER.fullmatch(name) is not None


def parse_address(address: str) -> tuple[httpx.URL, str | None]:
    """Read an address as Consul's own tools do; give the URL and, if any, the unix socket."""
    if address.startswith("unix://"):
        return httpx.URL("http://consul"), address.removeprefix("unix://")
    try:
        url = httpx.URL(address if "://" in address else f"http://{address}")
    except httpx.InvalidURL as error:
        raise ValueError(f"not an address of Consul: {address!r}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"not an address of Consul: {address!r}")
    return url, None


def ssl_context(options: ConsulOptions, url: httpx.URL) -> ssl.SSLContext:
    """Make the context for TLS with Consul. Raises OSError for files that cannot be used."""
    if url.scheme != "https":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context(cafile=options.ca_file)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.client_cert is not None:
        context.load_cert_chain(options.client_cert, options.client_key)
    return context


def read_token(file: Path) -> str:
    """Read a file that holds nothing but a token. Raises OSError, and ValueError for no token."""
    with file.open("rb") as opened:
        raw = opened.read(_LONGEST_TOKEN_BYTES + 1)
    if len(raw) > _LONGEST_TOKEN_BYTES:
        raise ValueError(f"{str(file)!r} holds more than a token")
    token = raw.decode("utf-8").strip()
    if not token:
        raise ValueError(f"{str(file)!r} is empty; name no token file where Consul needs no token")
    if not is_one_word(token):
        raise ValueError(f"{str(file)!r} holds more than a token: a line break, say, or a blank")
    return token
