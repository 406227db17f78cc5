"""Switching to another protocol (RFC 9110 §7.8): what is offered, what is taken, how bytes pass.

A client's offer goes to the instance only for protocols that the route takes. Once the instance has
answered 101 with just that protocol, request and answer become two streams of bytes without an end
of their own, with the same back-pressure as any body. Nothing that a client sends behind its offer
passes before the 101 (CVE-2026-2833), and no other status opens a tunnel (CVE-2024-23326).

Of a WebSocket the frames are counted as they pass, so that both ends can be told when the gateway
must end it; the bytes of any other protocol mean nothing to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.failure import Failure
from gateway.core.headers import connection_names
from gateway.core.message import Fields, Request
from gateway.core.websocket import GOING_AWAY, Frames, close_frame
from gateway.proxy.upload import Upload

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

# A length that is never reached: the bytes pass as they are, and are never whole.
_ENDLESS = 1 << 62
_WEBSOCKET = b"websocket"


def refused_offer(request: Request, taken: frozenset[bytes]) -> tuple[Failure, str] | None:
    """Look at what a client offers; say so if it cannot do without what the route does not take.

    Any other offer that is not taken is forgotten: a client may always be answered without it. So
    is one with a body, for it could be answered in the middle of that.
    """
    if not request.upgrade or (request.upgrade in taken and request.length == 0):
        return None
    is_websocket, is_taken = request.upgrade == _WEBSOCKET, request.upgrade in taken
    request.upgrade = b""
    if not is_websocket:
        return None
    why = "a handshake of WebSocket has no body" if is_taken else "this route takes no WebSocket"
    return Failure.NOT_IMPLEMENTED, why


def offer_lines(request: Request) -> bytes:
    """Write the offer for the instance."""
    return b"\r\nConnection: Upgrade\r\nUpgrade: %b" % request.upgrade


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


class Tunnel(Upload):
    """What the bytes pass through once the protocol has switched; nothing is kept of them."""

    __slots__ = ("_to_client", "_to_instance")

    def __init__(self, protocol: bytes) -> None:
        super().__init__(_ENDLESS, buffer_bytes=0)
        self.forget()
        is_websocket = protocol == _WEBSOCKET
        self._to_instance = Frames() if is_websocket else None
        self._to_client = Frames() if is_websocket else None

    def passes_on(self, chunk: bytes) -> int:
        """Take note of what the client sent; return how many bytes of it pass in this turn."""
        return len(chunk) if self._to_instance is None else self._to_instance.count(chunk)

    def passes_back(self, chunk: bytes) -> int:
        """Take note of what the instance sent; return how many bytes of it pass in this turn."""
        return len(chunk) if self._to_client is None else self._to_client.count(chunk)

    def close(self, exchange: Exchange, now_s: float) -> None:
        """End it from between its ends, with a word to each that can be told one at this point."""
        if self._to_instance is not None and self._to_instance.takes_another:
            exchange.client_body(close_frame(GOING_AWAY, is_masked=True), now_s)
        if self._to_client is not None and self._to_client.takes_another:
            exchange.client.send_body(close_frame(GOING_AWAY, is_masked=False))
        exchange.client_gone(now_s)
