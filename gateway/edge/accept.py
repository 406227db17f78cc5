"""Station 1: what both faces look at before a request may enter the engine.

The fields that say whom the request is for and how long it is are read here, once, and strictly:
what could be read in two ways is refused (RFC 9112 §3.2, §6.3). So is the target, which may name
the host as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.core.failure import Failure
from gateway.core.headers import (
    FramingError,
    Special,
    host_and_length,
    is_plain_host,
    is_token,
    is_valid_host,
    listed,
    parse_length,
    read_request,
    split_request,
    with_host,
    without,
)
from gateway.core.message import Request

Refusal = tuple[Failure, str]

_ABSOLUTE: Final = re.compile(rb"https?://(?P<host>[^/?]+)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_USUAL = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})


def accept(request: Request, next_id: Callable[[], bytes]) -> Refusal | None:
    """Read the fields that steer a request into it; return why it is refused, None if it is not.

    `next_id` makes an id for requests that bring none, or none that is believed.
    """
    # :: Station 1: Accept
    parts = split_request(request.lines)
    usual = host_and_length(parts)
    if usual is not None and request.method in _USUAL and not request.is_http10:
        host, request.length = usual
        if is_plain_host(host):
            request.host = host
            request.request_id = next_id()
            return None
        request.length = 0
    return _accept_unusual(request, parts, next_id)


def _accept_unusual(
    request: Request, parts: list[bytes], next_id: Callable[[], bytes]
) -> Refusal | None:
    is_http10 = request.is_http10
    request.request_id = next_id()
    try:
        found = read_request(request, parts)
        options = _options(found.get(b"connection", []))
    except FramingError as error:
        return Failure.BAD_REQUEST, str(error)
    hosts = found.get(b"host", [])
    request.request_id = _believed_id(request) or request.request_id
    request.keeps_alive = b"close" not in options and (b"keep-alive" in options or not is_http10)
    if not is_token(request.method) or request.method == b"CONNECT":
        return Failure.NOT_IMPLEMENTED, "this method is not for a gateway"
    if b"upgrade" in options and not is_http10:
        request.upgrade = _offer(found.get(b"upgrade", []))
    refusal = _take_host(request, hosts) or _take_length(request, found)
    if request.length != 0 and b"expect" in found:
        _take_expectation(request, found[b"expect"])
    return refusal


def _take_expectation(request: Request, expectations: list[bytes]) -> None:
    """See whether the client waits with its body; HTTP/1.0 knows no 100 (RFC 9110 §10.1.1)."""
    is_continue = [one.lower() for one in expectations] == [b"100-continue"]
    request.expects_continue = is_continue and not request.is_http10
    if is_continue and request.is_http10:
        request.crossing = without(request.crossing, frozenset({b"expect"}))


def _believed_id(request: Request) -> bytes:
    """Give the id that a trusted peer sent, empty if there is none that can be used."""
    received = request.received
    if received is None or not request.peer.is_trusted:
        return b""
    request_id = received.get(b"x-request-id", b"")
    return request_id if is_token(request_id) else b""


def _options(connection: list[bytes]) -> set[bytes]:
    """List what Connection says, in lower case (RFC 9110 §7.6.1)."""
    return set[bytes]().union(*map(listed, connection))


def _offer(offers: list[bytes]) -> bytes:
    """Tell which protocol the client offers to switch to, in lower case (RFC 9110 §7.8).

    Empty if it offers several: it may be answered without any of them.
    """
    name = offers[0].strip(b" \t").lower() if len(offers) == 1 else b""
    return name if is_token(name) else b""


def _take_host(request: Request, hosts: list[bytes]) -> Refusal | None:
    """Read Host: exactly one in HTTP/1.1, at most one before (RFC 9112 §3.2)."""
    if not hosts and request.is_http10:
        return None
    if len(hosts) != 1:
        return Failure.BAD_REQUEST, f"{len(hosts)} Host fields where one is needed"
    if not is_valid_host(hosts[0]):
        return Failure.BAD_REQUEST, "the Host field is not a host"
    request.host = hosts[0]
    return None


def _take_length(request: Request, found: Special) -> Refusal | None:
    lengths = found.get(b"content-length", [])
    codings = found.get(b"transfer-encoding", [])
    if codings:
        is_chunked = [coding.lower() for coding in codings] == [b"chunked"]
        if lengths or not is_chunked or request.is_http10:
            return Failure.BAD_REQUEST, "the end of the body is ambiguous"
        request.length = None
        return None
    if len(lengths) > 1:
        return Failure.BAD_REQUEST, "more than one Content-Length"
    if lengths:
        try:
            request.length = parse_length(lengths[0])
        except FramingError as error:
            return Failure.BAD_REQUEST, str(error)
    return None


def read_target(request: Request, target: bytes) -> Refusal | None:
    """Split a request target into path and query; return why it is refused, None if it is not.

    An absolute one names the host, whatever Host says (RFC 9112 §3.2.2); it takes its place.
    OPTIONS may ask for no path at all (§3.2.4): then the path is `*`.
    """
    if target.startswith(b"/"):
        request.path, mark, query = target.partition(b"?")
        request.query = mark + query
        return None
    if request.method == b"OPTIONS" and target == b"*":
        return None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not is_valid_host(absolute["host"]):
        return Failure.BAD_REQUEST, "the target is neither a path nor a URL"
    request.host = absolute["host"]
    request.crossing = with_host(request.crossing, request.host)
    path, mark, query = absolute["rest"].partition(b"?")
    is_for_all = request.method == b"OPTIONS" and not absolute["rest"]
    request.path = b"*" if is_for_all else path or b"/"
    request.query = mark + query
    return None
