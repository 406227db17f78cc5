"""Station 1: what both faces look at before a request may enter the engine.

The fields that say whom the request is for and how long it is are read here, once, and strictly:
what could be read in two ways is refused (RFC 9112 §3.2, §6.3).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.failure import Failure
from gateway.core.headers import FramingError, is_token, is_valid_host, parse_length
from gateway.core.message import Request

Refusal = tuple[Failure, str]

_READ_HERE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"x-request-id",
        b"upgrade",
        b"connection",
    }
)


def accept(request: Request, http_version: str, next_id: Callable[[], bytes]) -> Refusal | None:
    """Read the fields that steer a request into it; return why it is refused, None if it is not.

    `next_id` makes an id for requests that bring none, or none that is believed.
    """
    # :: Station 1: Accept
    found: dict[bytes, list[bytes]] = {}
    for name, value in request.fields:
        lower = name.lower()
        if lower in _READ_HERE:
            # RFC 9110 §5.5: spaces behind a value are no part of it, but the parser leaves them.
            found.setdefault(lower, []).append(value.strip(b" "))
    request_id = found.get(b"x-request-id")
    is_believed = request_id is not None and request.peer.is_trusted and is_token(request_id[0])
    request.request_id = request_id[0] if request_id and is_believed else next_id()
    if not is_token(request.method) or request.method == b"CONNECT":
        return Failure.NOT_IMPLEMENTED, "this method is not for a gateway"
    if b"upgrade" in found and http_version == "1.1":
        request.upgrade = _offer(found[b"upgrade"], found.get(b"connection", []))
    return _take_host(request, found.get(b"host", []), http_version) or _take_length(
        request,
        found.get(b"content-length", []),
        found.get(b"transfer-encoding", []),
        http_version,
    )


def _offer(offers: list[bytes], connection: list[bytes]) -> bytes:
    """Tell which protocol the client offers to switch to, in lower case (RFC 9110 §7.8).

    Empty if it offers none in earnest, or several: it may be answered without any of them.
    """
    options = {option.strip(b" \t").lower() for line in connection for option in line.split(b",")}
    name = offers[0].strip(b" \t").lower() if len(offers) == 1 else b""
    return name if b"upgrade" in options and is_token(name) else b""


def _take_host(request: Request, hosts: list[bytes], http_version: str) -> Refusal | None:
    """Read Host: exactly one in HTTP/1.1, at most one before (RFC 9112 §3.2)."""
    if not hosts and http_version == "1.0":
        return None
    if len(hosts) != 1:
        return Failure.BAD_REQUEST, f"{len(hosts)} Host fields where one is needed"
    if not is_valid_host(hosts[0]):
        return Failure.BAD_REQUEST, "the Host field is not a host"
    request.host = hosts[0]
    return None


def _take_length(
    request: Request, lengths: list[bytes], codings: list[bytes], http_version: str
) -> Refusal | None:
    if codings:
        is_chunked = [coding.lower() for coding in codings] == [b"chunked"]
        if lengths or not is_chunked or http_version == "1.0":
            return Failure.BAD_REQUEST, "the end of the body is ambiguous"
        request.length = None
        return None
    if len(set(lengths)) > 1:
        return Failure.BAD_REQUEST, "Content-Length fields that differ"
    if lengths:
        try:
            request.length = parse_length(lengths[0])
        except FramingError as error:
            return Failure.BAD_REQUEST, str(error)
        request.declares_length = True
    return None
