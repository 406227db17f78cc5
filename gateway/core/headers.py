"""Which fields cross the gateway, which stop here, and which are ours.

Hop-by-hop fields stop here in both directions (RFC 9110 §7.6.1), with those that Connection names.
Fields by which instances learn who the client is are ours: what an untrusted peer sent under
these names, or under names that some frameworks take for the same (`X_Forwarded_For`), is dropped.
All other fields keep their order, their case and their duplicates.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Final

from gateway.core.message import AnswerHead, Fields, Request

_DROP, _CONNECTION, _OURS, _TE = 1, 2, 3, 4

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
IDENTITY: Final = (
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-client-cert",
    b"x-real-ip",
    b"x-request-id",
    b"forwarded",
)


def _spellings(name: bytes) -> list[bytes]:
    """List what CGI-like frameworks take for `name`: every hyphen may be an underscore."""
    parts = name.split(b"-")
    joints = product((b"-", b"_"), repeat=len(parts) - 1)
    return [b"".join(a + b for a, b in zip(parts, (*joint, b""), strict=True)) for joint in joints]


_IDENTITY_SPELLINGS: Final = frozenset(
    spelling for name in IDENTITY for spelling in _spellings(name)
)
# A client must not be able to have these removed by naming them in Connection (CVE-2022-31813).
_NOT_BY_CONNECTION: Final = frozenset({b"host", b"content-length", b"via", b"te", *IDENTITY})
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close", b""})
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]{0,5})?"
)
# RFC 9110 §6.5.1: fields that steer framing, routing, authentication or caching make no sense
# after the body, and are dangerous to whoever merges trailers into headers.
_NOT_IN_TRAILERS: Final = frozenset(
    {
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"expires",
        b"host",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"www-authenticate",
        *HOP_BY_HOP,
        *_IDENTITY_SPELLINGS,
    }
)
_REQUEST_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(HOP_BY_HOP, _DROP),
    b"connection": _CONNECTION,
    b"te": _TE,
    b"host": _DROP,
    b"content-length": _DROP,
    **dict.fromkeys(_IDENTITY_SPELLINGS, _OURS),
}
_ANSWER_SPECIAL: Final = HOP_BY_HOP | {b"content-length", b"date"}
_NO_CONTENT: Final = 204  # RFC 9110 §8.6: never with a length
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


class FramingError(ValueError):
    """A message whose end cannot be told for sure (RFC 9112 §6.3)."""


def is_valid_host(host: bytes) -> bool:
    """Tell whether a Host field is a host with an optional port (RFC 9110 §7.2)."""
    return _HOST.fullmatch(host) is not None


def is_token(text: bytes) -> bool:
    """Tell whether this may be a method or a field name (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def parse_length(text: bytes) -> int:
    """Read a Content-Length: digits and nothing else; raises FramingError (RFC 9110 §8.6)."""
    if _DIGITS.fullmatch(text) is None:
        raise FramingError("Content-Length is not a number")
    return int(text)


def request_lines(request: Request, via: bytes) -> bytes:
    """Write the fields that go to the instance, each line ended, without Host and framing.

    They are the same for every attempt, so they are written once for each request.
    """
    lines: list[bytes] = []
    received: dict[bytes, bytes] = {}
    named: frozenset[bytes] = frozenset()
    for name, value in request.fields:
        lower = name.lower()
        kind = _REQUEST_KINDS.get(lower)
        if kind is None:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif kind == _CONNECTION:
            if value not in _PLAIN_CONNECTION:
                named |= connection_names(value)
        elif kind == _OURS:
            earlier = received.get(lower)
            received[lower] = value if earlier is None else b"%b, %b" % (earlier, value)
        elif kind == _TE and _asks_for_trailers(value):
            lines.append(b"TE: trailers\r\nConnection: TE\r\n")
    if named:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    lines.append(identity_lines(request, received))
    lines.append(via)
    return b"".join(lines)


def identity_lines(request: Request, received: dict[bytes, bytes]) -> bytes:
    """Write the fields that tell an instance who asked for what, by which way.

    `received` are the fields of these names as the peer sent them; they count only if the peer is
    trusted, and then what it saw itself is appended to them, never put in their place.
    """
    peer = request.peer
    if not peer.is_trusted or not received:
        return (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
            b"X-Request-Id: %b\r\n%b"
            % (
                peer.address,
                peer.scheme,
                request.host,
                request.request_id,
                peer.certificate and _certificate_line(peer.certificate),
            )
        )
    return _trusted_identity_lines(request, received)


def read_answer(status: int, reason: bytes, fields: Fields, *, to_head: bool) -> AnswerHead:
    """Take an answer's head apart: what crosses, how long the body is, whether the line stays.

    `fields` are as received, `to_head` says that the request was a HEAD. Raises FramingError where
    the end of the answer cannot be told for sure.
    """
    kept: Fields = []
    special: Fields = []
    for field in fields:
        lower = field[0].lower()
        if lower in _ANSWER_SPECIAL:
            special.append((lower, field[1]))
            if lower != b"date":
                continue
        kept.append(field)
    head = AnswerHead(status, reason, kept)
    is_chunked = _read_special(head, special)
    if to_head or status in _BODILESS:
        head.has_body = False
        if status == _NO_CONTENT:
            head.length = None
    elif head.length is None and not is_chunked:
        head.keeps_alive = False
        head.ends_with_connection = True
    return head


def _read_special(head: AnswerHead, special: Fields) -> bool:
    """Do what an answer's special fields (names in lower case) say; True if it is chunked."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    named: frozenset[bytes] = frozenset()
    for lower, value in special:
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"date":
            head.has_date = True
        elif lower == b"transfer-encoding":
            codings.append(value.strip(b" \t").lower())
        elif lower == b"connection":
            named |= connection_names(value)
        elif lower == b"keep-alive" and (said := _KEEP_ALIVE_TIMEOUT.search(value)):
            head.idle_timeout_s = float(said[1])
    if named:
        head.keeps_alive = b"close" not in named
        head.has_date = head.has_date and b"date" not in named
        head.fields = [kept for kept in head.fields if kept[0].lower() not in named]
    head.length = _one_length(lengths, codings)
    return bool(codings)


def _one_length(lengths: list[bytes], codings: list[bytes]) -> int | None:
    # RFC 9112 §6.1: chunked is applied once and last, and no other coding was asked for with TE.
    if codings and codings != [b"chunked"]:
        raise FramingError("Transfer-Encoding is not just chunked")
    if len(lengths) + len(codings) > 1:
        raise FramingError("more than one Content-Length, or one beside Transfer-Encoding")
    return parse_length(lengths[0]) if lengths else None


def connection_names(value: bytes) -> frozenset[bytes]:
    """Read the field names and options that a Connection field lists, lower-case."""
    names = {name.strip(b" \t").lower() for name in value.split(b",")}
    return frozenset(names - _NOT_BY_CONNECTION - {b""})


def interim_fields(fields: Fields) -> Fields:
    """Keep the fields of an interim answer that may cross: it has no body, so no framing."""
    named = HOP_BY_HOP | {b"content-length"}
    for name, value in fields:
        if name.lower() == b"connection":
            named |= connection_names(value)
    return [field for field in fields if field[0].lower() not in named]


def trailer_fields(fields: Fields) -> Fields:
    """Keep the trailer fields that may cross (RFC 9110 §6.5.1)."""
    return [field for field in fields if field[0].lower() not in _NOT_IN_TRAILERS]


def _trusted_identity_lines(request: Request, received: dict[bytes, bytes]) -> bytes:
    peer = request.peer
    chain = received.get(b"x-forwarded-for")
    # An empty element for a peer without an address would hide the client behind it.
    forwarded_for = b", ".join([part for part in (chain, peer.address) if part])
    lines = [
        b"X-Forwarded-For: %b\r\n" % forwarded_for,
        b"X-Forwarded-Proto: %b\r\n" % received.get(b"x-forwarded-proto", peer.scheme),
        b"X-Forwarded-Host: %b\r\n" % received.get(b"x-forwarded-host", request.host),
        b"X-Request-Id: %b\r\n" % request.request_id,
    ]
    for name in (b"x-forwarded-port", b"x-forwarded-prefix", b"x-real-ip", b"forwarded"):
        value = received.get(name)
        if value is not None:
            lines.append(b"%b: %b\r\n" % (name, value))
    # Like addresses, certificates are listed in the order of the hops that saw them.
    certificates = (received.get(b"x-forwarded-client-cert"), peer.certificate)
    if seen := [one for one in certificates if one]:
        lines.append(_certificate_line(b", ".join(seen)))
    return b"".join(lines)


def _certificate_line(certificates: bytes) -> bytes:
    return b"X-Forwarded-Client-Cert: %b\r\n" % certificates


def _asks_for_trailers(te: bytes) -> bool:
    return b"trailers" in {coding.strip(b" \t").lower() for coding in te.split(b",")}
