"""How answers look on a client's wire: HTTP/1.1 heads, chunks, and who knows where a body ends.

Framing is always ours (RFC 9112 §6): a length if it is known, chunks for HTTP/1.1 if it is not, the
end of the connection for HTTP/1.0.
"""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus

from gateway.core.message import AnswerHead, Fields
from gateway.proxy.refusal import reason_phrase


class Framing(Enum):
    """How the client learns where the body ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    TUNNEL = 4


def framing_of(head: AnswerHead, *, is_http10: bool) -> Framing:
    """Choose how the body of this answer is framed."""
    if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
        return Framing.TUNNEL
    if not head.has_body:
        return Framing.NONE
    if head.length is not None:
        return Framing.LENGTH
    return Framing.CLOSE if is_http10 else Framing.CHUNKED


def head_bytes(
    head: AnswerHead, framing: Framing, request_id: bytes, connection: bytes = b""
) -> bytes:
    """Write the head of a final answer; `connection` is a Connection line, or nothing."""
    coding = b"\r\nTransfer-Encoding: chunked" if framing is Framing.CHUNKED else b""
    return b"HTTP/1.1 %d %b%b%b\r\nX-Request-Id: %b%b\r\n\r\n" % (
        head.status,
        head.reason,
        head.lines,
        coding,
        request_id,
        connection,
    )


def interim_bytes(status: int, fields: Fields) -> bytes:
    """Write an interim answer (RFC 9110 §15.2)."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason_phrase(status))]
    lines += [b"%b: %b\r\n" % field for field in fields]
    return b"".join(lines) + b"\r\n"


def chunk_bytes(chunk: bytes) -> bytes:
    """Frame one chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


def last_chunk(trailers: Fields) -> bytes:
    """Write what ends a chunked body."""
    return b"0\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % field for field in trailers)
