"""Which fields cross the gateway, which stop here, and which are ours.

Hop-by-hop fields stop here in both directions (RFC 9110 §7.6.1), with those that Connection names.
Fields by which instances learn who the client is are ours: see `gateway.core.identity`. Such names
are known in every spelling that a CGI-like server takes for the same: for those, all but letters
and digits is one character. `Proxy` never crosses: CGI makes HTTP_PROXY of it, which HTTP clients
of the instance would obey (httpoxy, CVE-2016-5385).
All other fields keep their order, their case and their duplicates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from gateway.core.identity import IDENTITY
from gateway.core.message import AnswerHead, Fields, Request, fields_of, lines_of

_STAYS, _OURS, _READ, _DROPPED = 1, 2, 3, 4

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
# A client must not be able to have these removed by naming them in Connection (CVE-2022-31813).
# By the last three the gateway goes itself, so the instance must know of them too.
_NOT_BY_CONNECTION: Final = frozenset(
    {b"host", b"content-length", b"via", b"te", *IDENTITY}
    | {b"expect", b"max-forwards", b"idempotency-key"}
)
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close", b""})
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,18} *")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PORT: Final = (
    rb"(?::(?:[0-9]{0,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
_LABEL: Final = rb"[A-Za-z0-9_~!$&'()*+,;=-]++"
# Escapes are allowed by RFC 3986 §3.2.2 and by no name that anybody has: an instance that decodes
# them would take the request for another site.
_HOST: Final = re.compile(rb"%b(?:\.%b)*\.?%b" % (_LABEL, _LABEL, _PORT))
# Without a zone, which means something on the client's machine alone (RFC 6874 §3).
_BRACKETED: Final = re.compile(rb"\[([0-9A-Fa-f:.]+)\]%b" % _PORT)
# Tells whether a Host field is a name, or an IPv4 address, with an optional port (RFC 9110 §7.2).
is_plain_host: Final = _HOST.fullmatch
# RFC 9110 §6.5.1: whoever merges trailers into headers must not get a field that steers framing,
# routing, authentication or caching. So those cross whose definition puts them there, and private
# ones, which only the two ends know.
_IN_TRAILERS: Final = frozenset(
    {
        b"checksum",
        b"content-digest",
        b"content-md5",
        b"digest",
        b"etag",
        b"grpc-message",
        b"grpc-status",
        b"grpc-status-details-bin",
        b"repr-digest",
        b"server-timing",
        b"signature",
        b"signature-input",
    }
)
_PRIVATE: Final = b"x-"
# All but letters and digits is a hyphen, as CGI makes an underscore of it.
_AS_ONE: Final = re.sub(rb"[^0-9A-Za-z]", b"-", bytes(range(256)))
_JOINT: Final = rb"[^0-9A-Za-z:\r]"


def alike(name: bytes) -> bytes:
    """Return how a field name is known here, whatever it is spelled like: `x-forwarded-for`."""
    return name.lower().translate(_AS_ONE)


def _pattern(names: Iterable[bytes], more: Iterable[bytes] = ()) -> re.Pattern[bytes]:
    """Make a pattern that splits lines at those of these names: name, value, and what is between.

    `more` are names as patterns, but for their first letter. Case is written out, and names with
    one first letter stand together: so the engine of `re` skips most lines at their first letter,
    which IGNORECASE would keep it from.
    """
    by_letter: dict[bytes, list[bytes]] = {}
    for letter, rest in [*((one[:1], _any_case(one[1:])) for one in sorted(names)), *_split(more)]:
        by_letter.setdefault(letter, []).append(rest)
    letters = _any_case(b"".join(by_letter)).replace(b"][", b"")
    branches = [_any_case(a) + b"(?:" + b"|".join(rest) + b")" for a, rest in by_letter.items()]
    return re.compile(rb"\r\n(?=%b)(%b):[ \t]*([^\r]*)" % (letters, b"|".join(branches)))


def _split(patterns: Iterable[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return ((one[:1], one[1:]) for one in patterns)


def _any_case(text: bytes) -> bytes:
    return b"".join(
        b"[%b%b]" % (char.upper(), char) if char.isalpha() else re.escape(char)
        for char in (text[at : at + 1] for at in range(len(text)))
    )


def _in_any_spelling(name: bytes) -> bytes:
    return name[:1] + _JOINT.join(map(_any_case, name[1:].split(b"-")))


_REQUEST_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(HOP_BY_HOP, _READ),
    b"host": _STAYS,
    b"content-length": _STAYS,
    b"expect": _STAYS,
    b"proxy": _DROPPED,
    **dict.fromkeys(IDENTITY, _OURS),
}
_FORWARDED: Final = b"x-forwarded"
_REQUEST_SPECIAL: Final = _pattern(
    [name for name in _REQUEST_KINDS if not name.startswith(b"x-")],
    [
        _in_any_spelling(_FORWARDED) + rb"(?:%b[^:\r]*)?" % _JOINT,
        *(_in_any_spelling(one) for one in IDENTITY if one[:2] == b"x-" and _FORWARDED not in one),
    ],
)
_ONE_SPECIAL: Final = 4  # parts: what is before it, its name, its value, what is behind it
_SPELLINGS_OF_HOST: Final = frozenset({b"Host", b"host"})
_HOST_LINE: Final = re.compile(rb"\r\n[Hh][Oo][Ss][Tt]:[^\r]*")
_ANSWER_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(HOP_BY_HOP, _READ),
    b"date": _STAYS,
    b"content-length": _STAYS,
    # There is one, that of the log; each face writes it.
    b"x-request-id": _DROPPED,
}
_ANSWER_SPECIAL: Final = _pattern(_ANSWER_KINDS)
# What most servers that speak of it say; it is taken out before anything else is looked at.
_PLAIN_KEEP_ALIVE: Final = b"\r\nConnection: keep-alive"
_PLAIN_KEEP_ALIVE_BYTES: Final = len(_PLAIN_KEEP_ALIVE)
CONTENT_LENGTH: Final = frozenset({b"content-length"})
_TWO_SPECIAL: Final = 7
# Which part is the length, by the names of the two; part 0 never is one.
_LENGTH_AT: Final = {
    b"DateContent-Length": 5,
    b"datecontent-length": 5,
    b"Content-LengthDate": 2,
    b"content-lengthdate": 2,
}
_LENGTH_BESIDE_HOST: Final = {
    b"HostContent-Length": 5,
    b"hostcontent-length": 5,
    b"Content-LengthHost": 2,
    b"content-lengthhost": 2,
}
_MOST_LISTED: Final = 100
_ZERO: Final = ord("0")
_MOST_DIGITS: Final = 18
_NO_CONTENT: Final = 204  # RFC 9110 §8.6: never with a length
_BODILESS: Final = frozenset({_NO_CONTENT, 304})


class FramingError(ValueError):
    """A message whose end cannot be told for sure (RFC 9112 §6.3)."""


def is_token(text: bytes) -> bool:
    """Tell whether this may be a method or a field name (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def is_valid_host(text: bytes) -> bool:
    """Tell whether this is a host with an optional port: a name, or an address in brackets too."""
    if is_plain_host(text):
        return True
    bracketed = _BRACKETED.fullmatch(text)
    return bracketed is not None and _is_ipv6(bracketed[1].decode())


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def parse_length(text: bytes) -> int:
    """Read a Content-Length: digits and nothing else; raises FramingError (RFC 9110 §8.6).

    Spaces behind it are no part of it (RFC 9112 §5.1), but the parser leaves them.
    """
    if _LENGTH.fullmatch(text) is None:
        raise FramingError("Content-Length is not a number")
    return int(text)


Special = dict[bytes, list[bytes]]


# Splits lines at the fields that steer a request: what is between, name, value, and so on.
split_request: Final = _REQUEST_SPECIAL.split


def host_and_length(parts: list[bytes]) -> tuple[bytes, int] | None:
    """Give Host and the body's length where nothing else steers a request; None for all others.

    Most requests are like this. The length is a plain one; the host may be anything.
    """
    if len(parts) == _ONE_SPECIAL:
        return (parts[2], 0) if parts[1] in _SPELLINGS_OF_HOST else None
    if len(parts) == _TWO_SPECIAL:
        at = _LENGTH_BESIDE_HOST.get(parts[1] + parts[4], 0)
        length = parts[at]
        if length.isdigit() and length[0] != _ZERO and len(length) <= _MOST_DIGITS:
            return parts[_TWO_SPECIAL - at], int(length)
    return None


def read_request(request: Request, parts: list[bytes]) -> Special:
    """Find the fields that steer a request, by name in lower case; all others cross as they are.

    `parts` are its lines as `split_request` splits them. Raises FramingError for lists that are too
    long. What crosses is `request.crossing` then,
    and what the peer says of who asked is `request.received`.
    """
    found: Special = {}
    received: dict[bytes, bytes] = {}
    is_cut = False
    is_trusted = request.peer.is_trusted
    for at in range(1, len(parts), 3):
        name = parts[at].lower()
        value = parts[at + 1].rstrip(b" ")
        kind = _kind_of(name, is_trusted=is_trusted)
        if kind == _OURS:
            earlier = received.get(name)
            received[name] = value if earlier is None else b"%b, %b" % (earlier, value)
        else:
            found.setdefault(name, []).append(value)
        if kind != _STAYS or _is_padded(name, parts[at + 1]):
            is_cut = True
    if is_cut:
        request.crossing = _cut(parts, partial(_kind_of, is_trusted=is_trusted))
        request.received = received
        if b"connection" in found:
            _leave_out_named(request, found[b"connection"])
        if any(map(_asks_for_trailers, found.get(b"te", ()))):
            request.crossing += b"\r\nTE: trailers\r\nConnection: TE"
    return found


def _kind_of(name: bytes, *, is_trusted: bool) -> int:
    """Return what becomes of a special field of a request; `name` is in lower case.

    Only the usual spelling is believed. What a trusted peer tells under names that are not ours is
    for the instance to believe.
    """
    kind = _REQUEST_KINDS.get(name)
    if kind is not None:
        return kind
    is_ours = name.translate(_AS_ONE) in _REQUEST_KINDS
    return _DROPPED if is_ours or not is_trusted else _STAYS


def _cut(parts: list[bytes], kind_of: Callable[[bytes], int]) -> bytes:
    """Join lines again that were split at special ones, but for those that do not stay."""
    kept = [parts[0]]
    for at in range(1, len(parts), 3):
        name = parts[at].lower()
        if kind_of(name) == _STAYS:
            value = parts[at + 1].rstrip(b" ")
            if name == b"content-length":
                value = value.lstrip(b"0") or b"0"
            kept.append(b"\r\n%b: %b" % (parts[at], value))
        kept.append(parts[at + 2])
    return b"".join(kept)


def _is_padded(name: bytes, value: bytes) -> bool:
    """Tell whether a value has spaces behind it, or is a length that may look octal."""
    return value.endswith(b" ") or (
        value.startswith(b"0") and name == b"content-length" and value != b"0"
    )


def _leave_out_named(request: Request, connection: list[bytes]) -> None:
    """Leave out the fields that Connection names: they are for this hop (RFC 9110 §7.6.1)."""
    named = frozenset[bytes]().union(
        *(connection_names(value) for value in connection if value not in _PLAIN_CONNECTION)
    )
    if named:
        request.crossing = without(request.crossing, named)


def with_host(lines: bytes, host: bytes) -> bytes:
    """Let Host say this: in place of what it says, or first of all if there is none."""
    if (found := _HOST_LINE.search(lines)) is None:
        return b"\r\nHost: %b%b" % (host, lines)
    return lines[: found.start()] + b"\r\nHost: " + host + lines[found.end() :]


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Leave out the lines of these names, which are in lower case."""
    return lines_of([field for field in fields_of(lines) if field[0].lower() not in names])


def without_alike(fields: Fields, names: frozenset[bytes]) -> Fields:
    """Leave out the fields that are `alike` to one of these names."""
    return [field for field in fields if alike(field[0]) not in names]


def read_answer(status: int, reason: bytes, lines: bytes, method: bytes) -> AnswerHead:
    """Take an answer's head apart: what crosses, how long the body is, whether the line stays.

    `lines` are as received, `method` is that of the request. Raises FramingError where the end of
    the answer cannot be told for sure.
    """
    if lines[-_PLAIN_KEEP_ALIVE_BYTES:] == _PLAIN_KEEP_ALIVE:
        lines = lines[:-_PLAIN_KEEP_ALIVE_BYTES]
    elif _PLAIN_KEEP_ALIVE in lines:
        lines = lines.replace(_PLAIN_KEEP_ALIVE + b"\r\n", b"\r\n", 1)
    head = AnswerHead(status, reason, lines)
    parts = _ANSWER_SPECIAL.split(lines)
    is_bodiless = method == b"HEAD" or status in _BODILESS
    if len(parts) == _TWO_SPECIAL and not is_bodiless:
        length = parts[_LENGTH_AT.get(parts[1] + parts[4], 0)]
        # Most answers have a date and a length, no more.
        if length.isdigit() and length[0] != _ZERO and len(length) <= _MOST_DIGITS:
            head.length, head.has_date = int(length), True
            return head
    _read_special(head, parts)
    if is_bodiless:
        _leave_without_body(head)
    elif head.length is None and not head.is_chunked:
        head.keeps_alive = False
        head.ends_with_connection = True
    return head


def _leave_without_body(head: AnswerHead) -> None:
    head.has_body = False
    if head.status == _NO_CONTENT:
        if head.length or head.is_chunked:
            head.keeps_alive = False  # who says so may also send it
        if head.length is not None:
            head.length = None
            head.lines = without(head.lines, CONTENT_LENGTH)


def _read_special(head: AnswerHead, parts: list[bytes]) -> None:
    """Do what an answer's special fields say; `parts` are its lines, split at them."""
    lengths: list[bytes] = []
    hop: Special = {}
    is_padded = False
    for at in range(1, len(parts), 3):
        name = parts[at].lower()
        if name == b"date":
            head.has_date = True
        elif name == b"content-length":
            lengths.append(parts[at + 1].rstrip(b" "))
            is_padded = _is_padded(name, parts[at + 1])
        else:
            hop.setdefault(name, []).append(parts[at + 1].rstrip(b" \t"))
    codings: list[bytes] = []
    if hop or is_padded:
        head.lines = _cut(parts, _ANSWER_KINDS.__getitem__)
        codings = [value.lower() for value in hop.get(b"transfer-encoding", ())]
        _read_hop(head, hop)
        head.is_chunked = bool(codings)
    head.length = _one_length(lengths, codings)


def _read_hop(head: AnswerHead, hop: Special) -> None:
    """Do what the fields say that are for this hop alone."""
    for value in hop.get(b"keep-alive", ()):
        if said := _KEEP_ALIVE_TIMEOUT.search(value):
            head.idle_timeout_s = float(said[1])
    named = frozenset[bytes]().union(*map(connection_names, hop.get(b"connection", ())))
    if named:
        head.keeps_alive = b"close" not in named
        head.has_date = head.has_date and b"date" not in named
        head.lines = without(head.lines, named)


def _one_length(lengths: list[bytes], codings: list[bytes]) -> int | None:
    # RFC 9112 §6.1: chunked is applied once and last, and no other coding was asked for with TE.
    if codings and codings != [b"chunked"]:
        raise FramingError("Transfer-Encoding is not just chunked")
    if len(lengths) + len(codings) > 1:
        raise FramingError("more than one Content-Length, or one beside Transfer-Encoding")
    return parse_length(lengths[0]) if lengths else None


def connection_names(value: bytes) -> frozenset[bytes]:
    """Read the field names and options that a Connection field lists, lower-case."""
    return frozenset(listed(value) - _NOT_BY_CONNECTION)


def listed(value: bytes) -> set[bytes]:
    """Read the members of a list in a field, lower-case (RFC 9110 §5.6.1); empty ones are none.

    Raises FramingError for more than anybody has a use for: tens of thousands of them would take
    milliseconds, and many clients could send them at the same time.
    """
    if value.count(b",") > _MOST_LISTED:
        raise FramingError("a field lists too many members")
    members = {member.strip(b" \t") for member in set(value.lower().split(b","))}
    members.discard(b"")
    return members


def interim_fields(fields: Fields) -> Fields:
    """Keep the fields of an interim answer that may cross: it has no body, so no framing."""
    named = HOP_BY_HOP | {b"content-length", b"x-request-id"}
    for name, value in fields:
        if name.lower() == b"connection":
            named |= connection_names(value)
    return [field for field in fields if field[0].lower() not in named]


def trailer_fields(fields: Fields) -> Fields:
    """Keep the trailer fields that may cross (RFC 9110 §6.5.1)."""
    return [field for field in fields if _may_trail(alike(field[0]), field[0].lower())]


def _may_trail(known_as: bytes, name: bytes) -> bool:
    is_ours = known_as in IDENTITY or known_as.startswith(_FORWARDED)
    return name in _IN_TRAILERS or (name.startswith(_PRIVATE) and not is_ours)


def _asks_for_trailers(te: bytes) -> bool:
    return b"trailers" in listed(te)
