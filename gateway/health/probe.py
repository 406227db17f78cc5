"""One check of one instance: passed, or why not.

The one rule: a check costs a new connection and ends with it. So it finds what a new client would
find, never fails for an idle connection that the instance has just closed, and leaves nothing
behind. The head of the answer decides; a short body is read to its end, so that the instance sees
an orderly end and no reset, a long or late one is cut off. Redirects and cookies mean nothing here.

It is written by hand because httpx takes six times the CPU for it (measured, with 64 at once), and
requests on the same core would feel that where there are many instances.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from gateway.core.model import Instance
from gateway.core.policy import HealthCheckPolicy
from gateway.core.units import format_duration
from gateway.names import OUR_OWN_LACK, NameLateError, connect_first
from gateway.pem import why_refused

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
_FIRST_FINAL_STATUS = 200
_LONGEST_HEAD_BYTES = 64 * 1024
# As for requests; without a limit a full buffer of them is read in one turn of the loop.
_MAX_INTERIM_ANSWERS = 32
_LONGEST_BODY_BYTES = 64 * 1024
_BODY_WITHIN_S = 0.5
_TLS_END_WITHIN_S = 1.0
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_OF_OURS = OUR_OWN_LACK | {errno.EADDRNOTAVAIL}
_BODILESS = frozenset({204, 304})
_ENDLESS = "endless interim answers"
_NOT_HTTP = "what came back is not HTTP/1.1"


class Secured(Protocol):
    """How the connections of one instance are secured, and for which name it is verified."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context, shared by the instances of a service."""
        ...

    @property
    def server_name(self) -> str:
        """The name that its certificate must be for."""
        ...


async def probe(
    instance: Instance,
    policy: HealthCheckPolicy,
    secured: Secured | None,
    addresses: Sequence[str] | None = None,
) -> str | None:
    """Check once, and say in words what is wrong; None when nothing is.

    Raises NameLateError where it is we who lack something: that says nothing of the instance.

    `secured` is None for an instance without TLS. `addresses` are those of its host, None where
    that is an address itself.
    """
    ends = addresses or (instance.host,)
    what = policy.path or f"port {instance.port}"
    try:
        async with asyncio.timeout(policy.timeout_s) as within:
            if policy.type == "tcp":
                await connect_first(ends, partial(_connect, instance), _abort)
                return None
            streams = await connect_first(ends, partial(_open, instance, secured), _abort_streams)
            status = await _ask(instance, policy, within, *streams)
    except TimeoutError:
        return f"{what}: no result within {format_duration(policy.timeout_s)}"
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        if isinstance(error, OSError) and error.errno in _OF_OURS:
            raise NameLateError(f"{what}: {reason_of(error)}") from error
        # A name that cannot be a host name is a UnicodeError, and that is a ValueError.
        return f"{what}: {reason_of(error)}"
    passed = any(status in some for some in policy.expect)
    return None if passed else f"{what}: {status}"


async def _connect(instance: Instance, address: str) -> None:
    """Connect and leave again."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, address, instance.port)
    transport.abort()


def _abort(_: None) -> None:
    """Do nothing: `_connect` has left already."""


async def _open(instance: Instance, secured: Secured | None, address: str) -> _Streams:
    return await asyncio.open_connection(
        address,
        instance.port,
        limit=_LONGEST_HEAD_BYTES,
        ssl=None if secured is None else secured.context,
        server_hostname=None if secured is None else secured.server_name,
        ssl_shutdown_timeout=None if secured is None else _TLS_END_WITHIN_S,
    )


def _abort_streams(streams: _Streams) -> None:
    streams[1].transport.abort()


async def _ask(
    instance: Instance,
    policy: HealthCheckPolicy,
    within: asyncio.Timeout,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> int:
    """Ask over a connection of its own; return the status of the final answer."""
    is_whole = False
    try:
        writer.write(_request(instance, policy))
        for _ in range(_MAX_INTERIM_ANSWERS):
            head = await reader.readuntil(b"\r\n\r\n")
            found = _STATUS.match(head)
            if found is None:
                raise ValueError(_NOT_HTTP)
            if (status := int(found[1])) >= _FIRST_FINAL_STATUS:
                is_whole = status in _BODILESS or await _reads_body(head, reader, within)
                return status
        raise ValueError(_ENDLESS)
    finally:
        if is_whole:
            writer.close()
        else:
            writer.transport.abort()


async def _reads_body(head: bytes, reader: asyncio.StreamReader, within: asyncio.Timeout) -> bool:
    """Read what follows the head; False where that is too much, too late, or broken off.

    That takes half of the time at most that the check has left: its result is known already.
    """
    ends_at_s, now_s = within.when(), asyncio.get_running_loop().time()
    assert ends_at_s is not None, "a check has a time limit"
    within_s = min(_BODY_WITHIN_S, (ends_at_s - now_s) / 2)
    length = _LENGTH.search(head)
    left_bytes = int(length[1]) if length else _LONGEST_BODY_BYTES
    if left_bytes > _LONGEST_BODY_BYTES:
        return False
    is_chunked, tail = _CHUNKED.search(head) is not None, b""
    try:
        async with asyncio.timeout(within_s):
            while left_bytes > 0:
                data = await reader.read(left_bytes)
                if not data:
                    return True
                left_bytes -= len(data)
                tail = (tail + data)[-len(_LAST_CHUNK) :]
                if is_chunked and tail == _LAST_CHUNK:
                    return True
    except (TimeoutError, OSError):
        return False
    return length is not None


def _request(instance: Instance, policy: HealthCheckPolicy) -> bytes:
    """Write the request; a header of the policy takes the place of ours."""
    fields = {
        "host": ("Host", policy.host or instance.authority),
        "connection": ("Connection", "close"),
        "user-agent": ("User-Agent", "gateway-health-check"),
        "accept": ("Accept", "*/*"),
    }
    fields |= {name.lower(): (name, value) for name, value in policy.headers}
    lines = [f"{name}: {value}\r\n" for name, value in fields.values()]
    return f"GET {policy.path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")


def reason_of(error: Exception) -> str:
    """Say in words what went wrong in a check."""
    if isinstance(error, EOFError):
        return "closed without an answer"
    if isinstance(error, asyncio.LimitOverrunError):
        return _NOT_HTTP
    if isinstance(error, ssl.SSLCertVerificationError):
        return why_refused(error, ca="tls.ca_file", name="tls.server_name")
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        # asyncio only says "connect call failed"; names that are not found are below zero.
        return (os.strerror(error.errno) if error.errno > 0 else str(error.strerror)).lower()
    return str(error) or type(error).__name__
