"""Bodies of gigabytes, sent and checked as fast as the kernel takes them.

`python -m tests.fakes.bulk PORT` is an instance: GET /N answers with N bytes of the
pattern, GET /N?chunked with as many in chunks; a PUT is answered with `N ok` once N bytes of the
pattern have come, else `N wrong`. The rule: blocking sockets, no copies that can be avoided, and
every byte is compared, so that what is lost, doubled or moved anywhere is found.
"""

from __future__ import annotations

import random
import socket
import sys
import threading
from io import BufferedReader
from typing import Final

# A prime, so that it fits no buffer: a piece that is lost or comes twice shifts all that follows.
PERIOD_BYTES: Final = 1_000_003
PATTERN: Final = random.Random(0).randbytes(PERIOD_BYTES)
_TWICE: Final = PATTERN * 2
_PIECE_BYTES: Final = 512 * 1024
# Chunks of many sizes, small ones too, as few as their cost allows.
_CHUNK_BYTES: Final = (1, 700, 65_536, 300_007, 16_384, 500_000)


class BadBodyError(Exception):
    """A body that is not the pattern, or not whole."""


def send_pattern(sock: socket.socket, size_bytes: int, *, in_chunks: bool) -> None:
    """Send so many bytes of the pattern."""
    twice = memoryview(_TWICE)
    sent, number = 0, 0
    while sent < size_bytes:
        at = sent % PERIOD_BYTES
        most = _CHUNK_BYTES[number % len(_CHUNK_BYTES)] if in_chunks else PERIOD_BYTES
        piece = twice[at : at + min(most, size_bytes - sent)]
        if in_chunks:
            sock.sendall(b"%x\r\n" % len(piece))
        sock.sendall(piece)
        if in_chunks:
            sock.sendall(b"\r\n")
        sent += len(piece)
        number += 1
    if in_chunks:
        sock.sendall(b"0\r\n\r\n")


def read_pattern(source: BufferedReader, size_bytes: int | None) -> int:
    """Read a body of so many bytes, None for one in chunks; return how many came.

    BadBodyError when it is not the pattern.
    """
    buffer = memoryview(bytearray(_PIECE_BYTES))
    got = 0
    left = _next_chunk(source) if size_bytes is None else size_bytes
    while left:
        count = source.readinto(buffer[: min(left, _PIECE_BYTES)])
        if not count or not _TWICE.startswith(buffer[:count], got % PERIOD_BYTES):
            raise BadBodyError(f"after {got} bytes")
        got += count
        left -= count
        if not left and size_bytes is None:
            source.readline()
            left = _next_chunk(source)
    if size_bytes is None:
        source.readline()
    return got


def _next_chunk(source: BufferedReader) -> int:
    return int(source.readline(), 16)


def read_head(source: BufferedReader) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Read the words of the first line, and the fields by their names in lower case."""
    words = source.readline().split()
    fields: dict[bytes, bytes] = {}
    while line := source.readline().strip():
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return words, fields


def length_of(fields: dict[bytes, bytes]) -> int | None:
    """Tell how long a body is, None for one in chunks."""
    length = fields.get(b"content-length")
    return None if length is None else int(length)


def answers(sock: socket.socket) -> None:
    """Answer the requests of one connection until its end."""
    source = sock.makefile("rb")
    while True:
        words, fields = read_head(source)
        if not words:
            return
        if words[0] == b"PUT":
            verdict = _verdict(source, fields)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(verdict) + verdict)
            continue
        size, _, how = words[1][1:].partition(b"?")
        sock.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing(int(size), in_chunks=bool(how)))
        send_pattern(sock, int(size), in_chunks=bool(how))


def framing(size_bytes: int, *, in_chunks: bool) -> bytes:
    """Write the field that says how long a body is."""
    return b"Transfer-Encoding: chunked" if in_chunks else b"Content-Length: %d" % size_bytes


def _verdict(source: BufferedReader, fields: dict[bytes, bytes]) -> bytes:
    try:
        return b"%d ok" % read_pattern(source, length_of(fields))
    except BadBodyError as error:
        return b"wrong %b" % str(error).encode()


def _serve(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=answers, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
