"""As much of WebSocket (RFC 6455) as an echo needs: short messages, whole, in text frames."""

from __future__ import annotations

import base64
import hashlib

PAYLOAD_BYTES = 100  # less than 126, so that the length is in the second byte
_TEXT = 0x81
_MASKED = 0x80
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MASKED_BYTES = 2 + 4 + PAYLOAD_BYTES
PLAIN_BYTES = 2 + PAYLOAD_BYTES


def masked(payload: bytes, key: bytes) -> bytes:
    """Write a frame as clients do; `key` has 4 bytes."""
    return bytes((_TEXT, _MASKED | len(payload))) + key + _flip(payload, key)


def plain(payload: bytes) -> bytes:
    """Write a frame as the other side does."""
    return bytes((_TEXT, len(payload))) + payload


def echo(frame: bytes) -> bytes:
    """Turn one masked frame into the plain one with the same payload."""
    return plain(_flip(frame[6:], frame[2:6]))


def accept(key: bytes) -> bytes:
    """Answer a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 -- RFC 6455


def _flip(payload: bytes, key: bytes) -> bytes:
    pad = key * (len(payload) // 4 + 1)
    flipped = int.from_bytes(payload, "big") ^ int.from_bytes(pad[: len(payload)], "big")
    return flipped.to_bytes(len(payload), "big")
