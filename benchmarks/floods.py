"""The floods: what one peer sends at full speed while somebody else asks for a small answer.

Each is a start, and then the same again and again over one connection; a connection that is closed
is opened anew. What is made of many small pieces costs a proxy most for each byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.layout import prefix
from benchmarks.requests import HOST

_PIECE_BYTES = 262_144
_TO_INSTANCE = prefix("flood")
_CHUNK = b"1\r\nx\r\n"
_PING = b"\x89\x80\x00\x00\x00\x00"  # empty, masked (RFC 6455 §5.5.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """`again` is empty where the instance does the sending."""

    start: bytes = b""
    again: bytes = b""

    @property
    def piece(self) -> bytes:
        """As many repetitions as are handed to the kernel at once."""
        return self.again * max(_PIECE_BYTES // len(self.again), 1) if self.again else b""


def _ask(method: str, target: str, *fields: str) -> bytes:
    lines = (f"{method} {target} HTTP/1.1", f"Host: {HOST}", *fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


FLOODS = {
    "requests": Flood(again=_ask("GET", "/nowhere")),
    "paths": Flood(again=_ask("GET", "/" + "%BF" * 2500)),
    "lists": Flood(again=_ask("GET", "/nowhere", "Connection: " + "," * 60_000)),
    "upload": Flood(
        start=_ask("POST", f"{_TO_INSTANCE}/read", "Transfer-Encoding: chunked"), again=_CHUNK
    ),
    "download": Flood(start=_ask("GET", f"{_TO_INSTANCE}/chunks")),
    "frames": Flood(
        start=_ask(
            *("GET", f"{_TO_INSTANCE}/tunnel", "Upgrade: websocket", "Connection: Upgrade"),
            *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: c2l4dGVlbiBieXRlcyBvaw=="),
        ),
        again=_PING,
    ),
}
CHUNKS = _CHUNK * (_PIECE_BYTES // len(_CHUNK))
