"""Where the frames of a WebSocket begin and end, counted as its bytes pass, and how one is closed.

Nothing is unmasked, joined or checked: that is for the two ends. Who knows where a frame ends can
put one of its own behind it, also in the middle of a message in fragments (RFC 6455 §5.4).
"""

from __future__ import annotations

from typing import Final

GOING_AWAY: Final = 1001
_CLOSE: Final = 0x8
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_MASK_BYTES: Final = 4
_NO_MASK: Final = bytes(_MASK_BYTES)
# The first two bytes have the length, or say in how many further bytes it stands (RFC 6455 §5.2).
_LENGTH_BYTES: Final = {126: 2, 127: 8}
_START_BYTES: Final = 2
# So many frames are counted at a time: about a millisecond.
MOST_FRAMES: Final = 2048


class Frames:
    """Counts the frames of one direction."""

    __slots__ = ("_has_closed", "_left_bytes", "_start")

    def __init__(self) -> None:
        self._left_bytes = 0
        self._start = b""
        self._has_closed = False

    def __repr__(self) -> str:
        where = "closed" if self._has_closed else f"{self._left_bytes} bytes to the next frame"
        return f"<Frames {where}>"

    @property
    def takes_another(self) -> bool:
        """Whether a further frame may stand here: between two others, and no close went before."""
        return not (self._left_bytes or self._start or self._has_closed)

    def count(self, chunk: bytes) -> int:
        """Take note of bytes that pass; return how many of them.

        That is all, unless there are more frames than are counted at a time: then give the rest in
        a later turn.
        """
        before_bytes = len(self._start)
        if before_bytes:
            chunk = self._start + chunk
            self._start = b""
        size_bytes, at = len(chunk), self._left_bytes
        most = MOST_FRAMES
        while at < size_bytes and most:
            most -= 1
            frame_bytes = _size_of_frame(chunk, at)
            if not frame_bytes:
                self._start = chunk[at:]
                at = size_bytes
            elif chunk[at] & 0xF == _CLOSE:
                self._has_closed = True
            at += frame_bytes
        self._left_bytes = max(at - size_bytes, 0)
        return min(at, size_bytes) - before_bytes


def close_frame(code: int, *, is_masked: bool) -> bytes:
    """Write the frame that closes a WebSocket; those to the side that serves are masked.

    The mask changes nothing: it keeps others from choosing what stands on the wire (RFC 6455
    §10.3), and nobody else chooses this.
    """
    reason = code.to_bytes(2, "big")
    start = bytes((_FINAL | _CLOSE, len(reason) | (_MASKED if is_masked else 0)))
    return start + (_NO_MASK if is_masked else b"") + reason


def _size_of_frame(chunk: bytes, at: int) -> int:
    """Tell how long the frame is that begins here, 0 if its length is not here yet."""
    if at + _START_BYTES > len(chunk):
        return 0
    second = chunk[at + 1]
    length = second & ~_MASKED
    start_bytes = _START_BYTES + (_MASK_BYTES if second & _MASKED else 0)
    more = _LENGTH_BYTES.get(length)
    if more is None:
        return start_bytes + length
    end = at + _START_BYTES + more
    if end > len(chunk):
        return 0
    return start_bytes + more + int.from_bytes(chunk[at + _START_BYTES : end], "big")
