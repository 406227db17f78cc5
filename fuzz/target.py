"""How bytes become a case, and which words of HTTP the fuzzer may put into them."""

from __future__ import annotations

MOST_PIECE_BYTES = 64
WORDS = (
    *(r"HTTP/1.1\x0d\x0a", r"HTTP/1.0", r"HTTP/2.0", r"\x0d\x0a", r"\x0d\x0a\x0d\x0a", r"\x0a"),
    *(r"Content-Length: 3\x0d\x0a", r"Transfer-Encoding: chunked\x0d\x0a", r"Host: a\x0d\x0a"),
    *(r"Connection: close\x0d\x0a", r"Connection: keep-alive\x0d\x0a", r"Expect: 100-continue"),
    *(r"Connection: Upgrade\x0d\x0aUpgrade: h2c\x0d\x0a", r"Upgrade: websocket\x0d\x0a"),
    *(r"3\x0d\x0aabc\x0d\x0a", r"0\x0d\x0a\x0d\x0a", r"3;x=y\x0d\x0a", r"ffffffffffffffff\x0d\x0a"),
    *("GET ", "POST ", "HEAD ", "OPTIONS * ", "CONNECT ", "http://b/", "chunked, chunked", "gzip"),
    *("100 Continue", "101 Switching Protocols", "204 No Content", "304 Not Modified", "200 OK"),
)


def case(raw: bytes) -> bytes:
    """Make the case that reads these bytes in pieces of seven."""
    return raw + b"\x06"


def cut(case: bytes) -> tuple[bytes, list[bytes]]:
    """Give bytes to read, and the same bytes in pieces; the last byte says how large those are."""
    raw, size_bytes = case[:-1], (case[-1] if case else 0) % MOST_PIECE_BYTES + 1
    return raw, [raw[at : at + size_bytes] for at in range(0, len(raw), size_bytes)]
