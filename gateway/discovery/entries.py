"""A JSON list, read item by item.

`json.loads` holds the interpreter until it is done, in a thread too: 53 MB of instances stop the
event loop for more than a second. Items that are read one by one leave gaps between them, and never
exist all at once.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

_PIECE_BYTES = 64 * 1024
LONGEST_ITEM_BYTES = 1024 * 1024
_BLANK = " \t\r\n"
_AFTER_ITEM = _BLANK + ",]"
_decode_item = json.JSONDecoder().raw_decode


def items_of(body: bytes | bytearray) -> Iterator[Any]:
    """Yield the items of a JSON list (RFC 8259), one by one.

    Raises ValueError for a body that is not a list in UTF-8, and for an item of more than
    LONGEST_ITEM_BYTES; RecursionError for one that is nested too deeply. Items before the fault
    have been yielded by then.
    """
    text = _Text(body)
    if text.next_mark() != "[":
        raise ValueError("not a list")
    text.skip()
    if text.next_mark() == "]":
        text.skip()
    else:
        yield from _items(text)
    if text.next_mark():
        raise ValueError("more than one value")


def _items(text: _Text) -> Iterator[Any]:
    while True:
        yield text.next_item()
        mark = text.next_mark()
        text.skip()
        if mark == "]":
            return
        if mark != ",":
            raise ValueError("not JSON: an item is not followed by a comma")
        text.next_mark()


class _Text:
    """The body as text, decoded in pieces: as a whole it could take four times its size."""

    def __init__(self, body: bytes | bytearray) -> None:
        self._body = body
        self._read_bytes = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = 0

    def next_mark(self) -> str:
        """Return the next character that is not blank, without taking it; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if not self._read_more():
                return ""

    def skip(self) -> None:
        """Take the character that `next_mark` returned."""
        self._at += 1

    def next_item(self) -> Any:
        """Take a value that begins here."""
        while True:
            try:
                item, end = _decode_item(self._text, self._at)
            except ValueError:
                if not self._read_more():
                    raise
            else:
                # A number may go on in the next piece: 1 may be the begin of 1.5.
                is_whole = end < len(self._text) and self._text[end] in _AFTER_ITEM
                if is_whole or not self._read_more():
                    self._at = end
                    return item

    def _read_more(self) -> bool:
        """Decode as much again as is waiting, so that a long item is not tried for each piece."""
        rest = self._text[self._at :]
        if len(rest) > LONGEST_ITEM_BYTES:
            raise ValueError(f"an item of more than {LONGEST_ITEM_BYTES} bytes")
        start, end = self._read_bytes, self._read_bytes + max(_PIECE_BYTES, len(rest))
        piece = self._body[start:end]
        self._read_bytes = start + len(piece)
        self._text = rest + self._decode(piece, final=not piece)
        self._at = 0
        return bool(piece)
