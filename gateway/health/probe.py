"""One check of one instance: passed, or why not.

The one rule: a check costs a new connection and ends with it. So it finds what a new client would
find, never fails for an idle connection that the instance has just closed, and leaves nothing
behind. Of the answer only the head is read, because a body may be endless; redirects and cookies
mean nothing here.

It is written by hand because httpx takes six times the CPU for it (measured, with 64 at once), and
requests on the same core would feel that where there are many instances.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from gateway.core.model import Instance
from gateway.core.policy import HealthCheckPolicy
from gateway.core.units import format_duration
from gateway.names import connect_first

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
_FIRST_FINAL_STATUS = 200
_LONGEST_HEAD_BYTES = 64 * 1024
# As for requests; without a limit a full buffer of them is read in one turn of the loop.
_MAX_INTERIM_ANSWERS = 32
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

    `secured` is None for an instance without TLS. `addresses` are those of its host, None where
    that is an address itself.
    """
    ends = addresses or (instance.host,)
    what = policy.path or f"port {instance.port}"
    try:
        async with asyncio.timeout(policy.timeout_s):
            if policy.type == "tcp":
                await connect_first(ends, partial(_connect, instance), _abort)
                return None
            streams = await connect_first(ends, partial(_open, instance, secured), _abort_streams)
            status = await _ask(instance, policy, *streams)
    except TimeoutError:
        return f"{what}: no result within {format_duration(policy.timeout_s)}"
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
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
    )


def _abort_streams(streams: _Streams) -> None:
    streams[1].transport.abort()


async def _ask(
    instance: Instance,
    policy: HealthCheckPolicy,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> int:
    """Ask over a connection of its own; return the status of the final answer."""
    try:
        writer.write(_request(instance, policy))
        for _ in range(_MAX_INTERIM_ANSWERS):
            found = _STATUS.match(await reader.readuntil(b"\r\n\r\n"))
            if found is None:
                raise ValueError(_NOT_HTTP)
            if (status := int(found[1])) >= _FIRST_FINAL_STATUS:
                return status
        raise ValueError(_ENDLESS)
    finally:
        writer.transport.abort()


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
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        # asyncio only says "connect call failed"; names that are not found are below zero.
        return (os.strerror(error.errno) if error.errno > 0 else str(error.strerror)).lower()
    return str(error) or type(error).__name__
