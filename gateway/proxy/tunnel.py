"""Switching to another protocol (RFC 9110 §7.8): what is offered, what is taken, how bytes pass.

A client's offer goes to the instance only for protocols that the route takes. Once the instance has
answered 101 with just that protocol, request and answer become two streams of bytes without an end
of their own, with the same back-pressure as any body. Nothing that a client sends behind its offer
passes before the 101 (CVE-2026-2833), and no other status opens a tunnel (CVE-2024-23326).
"""

from __future__ import annotations

from gateway.core.failure import Failure
from gateway.core.headers import connection_names
from gateway.core.message import Fields, Request
from gateway.proxy.upload import Upload

# A length that is never reached: the bytes pass as they are, and are never whole.
_ENDLESS = 1 << 62


def refused_offer(request: Request, taken: frozenset[bytes]) -> tuple[Failure, str] | None:
    """Look at what a client offers; say so if it cannot do without what the route does not take.

    Any other offer that is not taken is forgotten: a client may always be answered without it. So
    is one with a body, for it could be answered in the middle of that.
    """
    if not request.upgrade or (request.upgrade in taken and request.length == 0):
        return None
    is_websocket = request.upgrade == b"websocket"
    request.upgrade = b""
    if is_websocket:
        return Failure.NOT_IMPLEMENTED, "WebSocket is not taken on this route"
    return None


def offer_lines(request: Request) -> bytes:
    """Write the offer for the instance, if there is one."""
    if not request.upgrade:
        return b""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade


def switched_to(fields: Fields) -> bytes:
    """Tell which protocol a 101 switches to, in lower case; empty if it does not say just one.

    It says so in Upgrade, and that Upgrade is meant in Connection (RFC 9110 §7.8).
    """
    named = [value.strip(b" \t").lower() for name, value in fields if name.lower() == b"upgrade"]
    is_meant = any(
        name.lower() == b"connection" and b"upgrade" in connection_names(value)
        for name, value in fields
    )
    return named[0] if is_meant and len(named) == 1 else b""


def tunnel_upload() -> Upload:
    """Make the Upload that a client's bytes pass through once the protocol has switched."""
    upload = Upload(_ENDLESS, buffer_bytes=0)
    upload.forget()
    return upload
