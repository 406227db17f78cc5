"""Where the head of a message ends in a stream of bytes that comes in pieces."""

from __future__ import annotations

from typing import Final

HEAD_END: Final = b"\r\n\r\n"
_MOST_IN_EARLIER: Final = len(HEAD_END) - 1


def end_of_head(begun: bytes, data: bytes, start: int) -> int:
    """Find where a head ends in `data`, behind its empty line; 0 if it is not whole yet.

    `begun` is what came of it before; from `start` on `data` goes on with it.
    """
    if begun:
        # The empty line may have begun in an earlier piece.
        tail = begun[-_MOST_IN_EARLIER:]
        found = (tail + data[start : start + _MOST_IN_EARLIER]).find(HEAD_END)
        if found >= 0:
            return start + found + len(HEAD_END) - len(tail)
    found = data.find(HEAD_END, start)
    return found + len(HEAD_END) if found >= 0 else 0
