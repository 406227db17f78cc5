"""What an app of this process answers: its messages, checked before anything of them leaves.

The one rule: an app may say what it wants to say, but not how it is framed. A field that would end
a head early, a second length or a transfer coding never reaches a client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from gateway.core.headers import FramingError, connection_names, is_token, read_answer
from gateway.core.message import AnswerHead, Fields, lines_of
from gateway.edge.asgi import Message
from gateway.proxy.refusal import reason_phrase

_VALUE: Final = re.compile(rb"[^\x00\r\n]*")
_STATUSES: Final = range(200, 1000)  # those below are no answers, and 101 would open a tunnel


class AppMistakeError(RuntimeError):
    """An app sent something that is no answer; says what."""


def read_start(message: Message, method: bytes) -> tuple[AnswerHead, bool]:
    """Read `http.response.start`: the head, and whether the connection is to be closed after it.

    `method` is that of the request. Raises AppMistakeError.
    """
    status = message.get("status")
    if not isinstance(status, int) or status not in _STATUSES:
        raise AppMistakeError(f"{status!r} is not the status of an answer")
    fields = _fields(message.get("headers", ()))
    stays = not any(
        name.lower() == b"connection" and b"close" in connection_names(value)
        for name, value in fields
    )
    framed = [field for field in fields if field[0].lower() != b"transfer-encoding"]
    try:
        head = read_answer(int(status), reason_phrase(status), lines_of(framed), method)
    except FramingError as error:
        raise AppMistakeError(str(error)) from error
    return head, not stays


def read_body(message: Message) -> tuple[bytes, bool]:
    """Read `http.response.body`: the piece, and whether more will come; raises AppMistakeError."""
    if message["type"] != "http.response.body":
        raise AppMistakeError(f"{message['type']!r} cannot be sent here")
    chunk = message.get("body", b"")
    if not isinstance(chunk, bytes | bytearray | memoryview):
        raise AppMistakeError(f"a body is bytes, not {type(chunk).__name__}")
    return bytes(chunk), bool(message.get("more_body", False))


def _fields(headers: Iterable[Any]) -> Fields:
    return [_field(name, value) for name, value in headers]


def _field(name: object, value: object) -> tuple[bytes, bytes]:
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise AppMistakeError(f"the field {name!r} is not made of bytes")
    if not is_token(name) or _VALUE.fullmatch(value) is None:
        raise AppMistakeError(f"the field {name!r} cannot be sent")
    return name, value.strip(b" \t")
