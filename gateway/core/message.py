"""Requests and answers as the engine sees them: framing taken out, all other bytes kept.

They are plain mutable objects, made once for each exchange, because they are on the hot path.
"""

from __future__ import annotations

from typing import Final

Fields = list[tuple[bytes, bytes]]

NO_FIELDS: Final[Fields] = []


class Request:
    """The head of a request after station 1, with its target in normal form.

    `path` is the normal form, `query` is empty or starts with "?". `host` is the authority that the
    client asked for. `length` is the body's length in bytes, None if it is chunked; a request
    without a body has length 0 and `declares_length` False. `fields` are as received. `upgrade` is
    the protocol, in lower case, that the client offers to switch to, empty for none.
    """

    __slots__ = (
        "declares_length",
        "fields",
        "host",
        "length",
        "method",
        "path",
        "peer",
        "query",
        "request_id",
        "started_at_s",
        "upgrade",
    )

    def __init__(
        self,
        method: bytes,
        path: bytes,
        *,
        query: bytes,
        fields: Fields,
        host: bytes,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.fields = fields
        self.host = host
        self.length: int | None = 0
        self.declares_length = False
        self.peer: Peer = UNKNOWN_PEER
        self.request_id = b""
        self.started_at_s = 0.0
        self.upgrade = b""

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path.decode('latin-1')}>"


class Peer:
    """Who is at the other end of a client's connection, known once for each connection.

    `address` is its IP address as text, empty if it has none (a Unix socket). `is_trusted` says
    whether what it tells of clients behind it is believed. `certificate` is what instances are told
    of the certificate that it has shown, empty if it has shown none.
    """

    __slots__ = ("address", "certificate", "is_trusted", "scheme")

    def __init__(
        self, address: bytes, scheme: bytes, *, is_trusted: bool, certificate: bytes = b""
    ) -> None:
        self.address = address
        self.scheme = scheme
        self.is_trusted = is_trusted
        self.certificate = certificate


UNKNOWN_PEER: Final = Peer(b"", b"http", is_trusted=False)


class AnswerHead:
    """The head of an answer with hop-by-hop fields and framing taken out.

    `length` is the body's length in bytes, None if the body ends some other way. For answers
    without a body (`has_body` False: to HEAD, 204, 304) `length` is what a body would have had, if
    the instance said so (RFC 9110 §8.6). `keeps_alive` says whether the connection that the answer
    came on may carry another request; `ends_with_connection` that only its end ends the body.
    `idle_timeout_s` is for how long the instance says that it keeps the connection idle, None if it
    does not say.
    """

    __slots__ = (
        "ends_with_connection",
        "fields",
        "has_body",
        "has_date",
        "idle_timeout_s",
        "keeps_alive",
        "length",
        "reason",
        "status",
    )

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.length: int | None = None
        self.has_body = True
        self.has_date = False
        self.keeps_alive = True
        self.ends_with_connection = False
        self.idle_timeout_s: float | None = None

    def __repr__(self) -> str:
        return f"<AnswerHead {self.status}, length {self.length}>"
