"""Reads the heads of answers, strictly: llhttp checks the bytes, and what it lets pass is here.

Anything that could be read in two ways is refused, with the reason in words (RFC 9112 §6.3, §11).
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from gateway.core.headers import (
    FramingError,
    connection_names,
    read_answer,
    without,
)
from gateway.core.heads import HEAD_END
from gateway.core.message import AnswerHead, Fields, Request, fields_of
from gateway.proxy.tunnel import switched_to

MAX_HEAD_BYTES: Final = 64 * 1024
# Whatever is sent on purpose has fewer, and 64 KiB of them would take many milliseconds.
MAX_FIELDS: Final = 1000
SWITCHING_PROTOCOLS: Final = 101
FIRST_FINAL: Final = 200
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_USUAL_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2}) ([\t -~\x80-\xff]*)(?=\r\n)")
_STATUS: Final = {b"%d" % status: status for status in range(FIRST_FINAL, 1000)}
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r]*))?(?=\r\n)")
_ITS_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]+)")
_PAUSED: Final = "Pause on CONNECT/Upgrade"  # llhttp, at a 101 without Upgrade
_PLAIN: Final = re.compile(rb"[\t -~\x80-\xff]*")
# llhttp checks; what a head says is read from its bytes.
_NOBODY: Final = object()


def check_head(
    piece: bytes, parser: httptools.HttpResponseParser | None
) -> httptools.HttpResponseParser:
    """Let llhttp look at the next bytes of a head, so that what is no HTTP is noticed at once.

    `parser` is the one that looked at what came before, None for the first piece; return it for the
    next one. It must see nothing but this one head. Raises FramingError.
    """
    if parser is None:
        parser = httptools.HttpResponseParser(_NOBODY)
    try:
        parser.feed_data(piece)
    except httptools.HttpParserUpgrade:
        pass  # whether it may switch to another protocol is not decided here
    except httptools.HttpParserError as error:
        if str(error) != _PAUSED:
            raise FramingError(str(error)) from error
    return parser


def read_head(raw: bytes, request: Request) -> AnswerHead:
    """Read a whole head that was checked: interim, final, or a 101 that was asked for.

    Raises FramingError.
    """
    line = _USUAL_LINE.match(raw)
    if line is not None:
        code, reason = line.groups()
        return read_answer(_STATUS[code], reason, raw[line.end() : -4], request.method)
    return _read_unusual_head(raw, request)


def _read_unusual_head(raw: bytes, request: Request) -> AnswerHead:
    """Read one of HTTP/1.0, an interim one, a 101, or one that is refused."""
    line = _STATUS_LINE.match(raw)
    if line is None:
        said = _ITS_STATUS.match(raw)
        raise FramingError(f"status {int(said[1])}" if said else "it is not HTTP/1")
    minor, code, reason = line.groups(b"")
    if _PLAIN.fullmatch(reason) is None:
        raise FramingError("control characters in the reason phrase")
    lines = raw[line.end() : -len(HEAD_END)]
    status = int(code)
    if status == SWITCHING_PROTOCOLS:
        # It ends with its head, whatever it says (RFC 9112 §6.3), and no length is sent on with it.
        lines = without(lines, _FRAMING)
    head = read_answer(status, reason, lines, request.method)
    if minor == b"0" and not _keeps_alive_in_1_0(fields_of(lines)):
        head.keeps_alive = False
    if head.status < FIRST_FINAL and (head.length or head.is_chunked):
        # It has none (RFC 9112 §6.3); whoever says so may send one, which would be the next answer.
        raise FramingError("an interim answer with a body")
    if head.status == SWITCHING_PROTOCOLS:
        offered = request.upgrade
        if not offered or minor == b"0" or switched_to(fields_of(lines)) != offered:
            raise FramingError("it switches to a protocol that nobody asked for")
        head.ends_with_connection = True
        head.lines += b"\r\nUpgrade: " + offered
    return head


def _keeps_alive_in_1_0(fields: Fields) -> bool:
    """Tell whether an HTTP/1.0 answer leaves the line open: it says so, and it is not chunked.

    RFC 9112 §9.3, and §6.1: transfer codings in HTTP/1.0 are faulty framing.
    """
    says_so = False
    for name, value in fields:
        lower = name.lower()
        if lower == b"transfer-encoding":
            return False
        if lower == b"connection" and b"keep-alive" in connection_names(value):
            says_so = True
    return says_so
