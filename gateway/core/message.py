"""Requests and answers as the engine sees them: what steers them is read, all other bytes kept.

They are plain mutable objects, made once for each exchange, because they are on the hot path. So
fields stay the bytes that they were: **lines**, each with a CRLF in front. Most of them are never
looked at one by one; `fields_of` takes them apart for whoever does.
"""

from __future__ import annotations

from typing import Final

from gateway.core.peer import UNKNOWN_PEER, Peer

__all__ = ["NO_FIELDS", "UNKNOWN_PEER", "AnswerHead", "Fields", "Peer", "Request"]

Fields = list[tuple[bytes, bytes]]

NO_FIELDS: Final[Fields] = []
_FORWARDED_FOR: Final = b"x-forwarded-for"
_FORWARDED_PROTO: Final = b"x-forwarded-proto"
_SCHEMES: Final = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}


def lines_of(fields: Fields) -> bytes:
    """Write fields as lines; names and values must be valid already."""
    return b"\r\n".join([b"", *map(b": ".join, fields)])


def fields_of(lines: bytes) -> Fields:
    """Take lines apart into names and values, without the white space around values."""
    return [
        (name, value.strip(b" \t"))
        for name, _, value in [line.partition(b":") for line in lines.split(b"\r\n")[1:]]
    ]


class Request:
    """The head of a request after station 1, with its target in normal form.

    `path` is the normal form, `query` is empty or starts with "?". `host` is the authority that the
    client asked for. `length` is the body's length in bytes, None if it is chunked, 0 where there
    is none. `lines` are its fields as received; those that cross to the instance as they are stand
    in `crossing`, Host and Content-Length among them. `received` are the fields by which the peer
    says who asked, None if it sent none. `upgrade` is the protocol, in lower case, that the client
    offers to switch to, empty for none. `keeps_alive` says whether the client wants its connection
    kept, `expects_continue` that it waits with its body for a 100 (RFC 9110 §10.1.1). `body` is the
    whole body where it came with the head; else it comes in pieces, and does not stand here.
    """

    __slots__ = (
        "body",
        "crossing",
        "expects_continue",
        "host",
        "is_http10",
        "keeps_alive",
        "length",
        "lines",
        "method",
        "path",
        "peer",
        "query",
        "received",
        "request_id",
        "started_at_s",
        "upgrade",
    )

    def __init__(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        lines: bytes,
        host: bytes = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.lines = lines
        self.crossing = lines
        self.received: dict[bytes, bytes] | None = None
        self.host = host
        self.length: int | None = 0
        self.body = b""
        self.is_http10 = False
        self.expects_continue = False
        self.peer: Peer = UNKNOWN_PEER
        self.request_id = b""
        self.started_at_s = 0.0
        self.upgrade = b""
        self.keeps_alive = True

    @property
    def client(self) -> bytes:
        """The address of the client: the peer's, or the one that trusted peers name behind it."""
        peer = self.peer
        if not peer.is_trusted:
            return peer.address
        chain = self._listed(_FORWARDED_FOR)
        return peer.client_behind(chain) if chain is not None else peer.address

    @property
    def scheme(self) -> bytes:
        """`http` or `https`: how the client came in, as trusted peers tell, else as the peer did.

        Of a list the first counts, which the proxy wrote that stands next to the client. What is
        none of these says nothing.
        """
        peer = self.peer
        told = self._listed(_FORWARDED_PROTO) if peer.is_trusted else None
        if told is None:
            return peer.scheme
        return _SCHEMES.get(told.partition(b",")[0].strip(b" \t").lower(), peer.scheme)

    def _listed(self, name: bytes) -> bytes | None:
        """Join all fields of this name, which is in lower case; None where there is none."""
        size_bytes = len(name)
        found = [
            value
            for field, value in self.fields
            if len(field) == size_bytes and field.lower() == name
        ]
        return b",".join(found) if found else None

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path.decode('latin-1')}>"

    @property
    def fields(self) -> Fields:
        """The fields as received, taken apart anew each time."""
        return fields_of(self.lines)


class AnswerHead:
    """The head of an answer with hop-by-hop fields taken out, chunked coding among them.

    `lines` are its fields. `length` is the body's length in bytes, which one of them says then;
    None if the body ends some other way. For answers without a body (`has_body` False: to HEAD,
    204, 304) `length` is what a body would have had, if the instance said so (RFC 9110 §8.6).
    `keeps_alive` says whether the connection that the answer came on may carry another request;
    `is_chunked` that the body came in chunks; `ends_with_connection` that only the end of that
    connection ends it. `idle_timeout_s` is for how long the
    instance says that it keeps the connection idle, None if it does not say.
    """

    __slots__ = (
        "ends_with_connection",
        "has_body",
        "has_date",
        "idle_timeout_s",
        "is_chunked",
        "keeps_alive",
        "length",
        "lines",
        "reason",
        "status",
    )

    def __init__(self, status: int, reason: bytes, lines: bytes) -> None:
        self.status = status
        self.reason = reason
        self.lines = lines
        self.length: int | None = None
        self.has_body = True
        self.has_date = False
        self.keeps_alive = True
        self.is_chunked = False
        self.ends_with_connection = False
        self.idle_timeout_s: float | None = None

    def __repr__(self) -> str:
        return f"<AnswerHead {self.status}, length {self.length}>"

    @property
    def fields(self) -> Fields:
        """The fields, taken apart anew each time."""
        return fields_of(self.lines)
