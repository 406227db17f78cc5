"""The one normal form of a request path, which is matched, filtered, rewritten and sent.

There is only one reading of a path in the gateway, so nobody can slip between two of them. Dot
segments are resolved, slashes that follow one another become one if the policy wants that,
%XX of unreserved characters are decoded, the others are written in capitals (RFC 3986 §6.2.2), and
all else stays byte for byte: `%2F` stays `%2F`.

Instances read paths in their own ways: they decode once more, take a backslash for a slash, cut
parameters off, or what follows an escaped `?` or `#`. What one of them could take for a dot segment
although it is none here is refused, and `readings` lists what else they may read, for whoever must
know that it comes to the same.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.core.policy import PathPolicy

# What stands for itself in a path, to everybody: no slash, no escape, no semicolon.
_PLAIN: Final = rb"[!$&-.0-9:=@A-Z_a-z~]*+"
# A path that all the world reads in the same way, and that is in normal form as it stands. Its
# group is not possessive: before 3.11.5, CPython takes `/a/.` for a match of one that is, because
# of what stands in it (python/cpython#106052). It is linear without: a slash is in no segment.
is_plain = re.compile(rb"(?:/(?![/.])%b)+" % _PLAIN).fullmatch

_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_HEX: Final = "0123456789ABCDEFabcdef"
_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
# What is unreserved is decoded, all else is written in capitals (RFC 3986 §6.2.2).
_NORMAL_ESCAPES: Final = {
    f"%{one}{two}".encode(): bytes((code,)) if code in _UNRESERVED else b"%%%02X" % code
    for one, two in product(_HEX, repeat=2)
    for code in (int(one + two, 16),)
}
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NOT_ALLOWED: Final = re.compile(rb"[^\x21-\x7e]|[#?]")
_SLASHES: Final = re.compile(rb"/{2,}")
# Behind a semicolon are parameters, to those who know any. To those who decode before they take a
# path apart it ends at a question mark or a number sign.
_DOT_SEGMENT: Final = re.compile(rb"[/\\]\.\.?(?:[/\\;?#]|\Z)")
_PARAMETERS: Final = re.compile(rb";[^/]*")
_BEHIND_PATH: Final = re.compile(rb"[?#].*", re.DOTALL)
# What does not stand for itself (RFC 3986 §3.3), and is no escape either.
_NOT_WRITTEN: Final = re.compile(rb"[^!$&-;=@A-Z_a-z~%]|%(?![0-9A-Fa-f]{2})")

# Forms of UTF-8 that are longer than they may be (RFC 3629 §3 forbids them, some decoders take
# them), and those among them that are characters of ASCII: the lowest bit of the last byte but one
# is the seventh of the character.
_OVERLONG: Final = re.compile(
    rb"(?:[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]|\xf8[\x80-\x87]|\xfc[\x80-\x83])[\x80-\xbf]"
)
_OVERLONG_ASCII: Final = re.compile(
    rb"([\xc0\xc1]|\xe0[\x80\x81]|\xf0\x80[\x80\x81]|\xf8\x80{2}[\x80\x81]|\xfc\x80{3}[\x80\x81])"
    rb"([\x80-\xbf])"
)
# A path in normal form that can be read in one way only, though it has escapes: none of a character
# with a meaning, or that stands for itself elsewhere, and none that an overlong form begins with.
_MISTAKABLE: Final = frozenset(
    {*b"\0%/\\;?#!$&'()*+,=:@", 0xC0, 0xC1, 0xE0, 0xF0, 0xF8, 0xFC},
)
# By the first digit, or a path of escapes alone would be held against each of them in turn.
_HARMLESS: Final = b"|".join(
    b"%X[%b]" % (first, b"".join(b"%X" % second for second in seconds))
    for first in range(16)
    for seconds in ([second for second in range(16) if first << 4 | second not in _MISTAKABLE],)
)
_is_unmistakable = re.compile(
    rb"(?:/(?!/)%b(?:%%(?:E0%%[AB]|F0%%[9AB]|%b)%b)*)+" % (_PLAIN, _HARMLESS, _PLAIN)
).fullmatch
_MAX_DECODINGS: Final = 3
_MOST_READINGS: Final = 8  # at a time; paths that mean no harm come to four


class PathError(ValueError):
    """A path that is not valid, or that an instance could read in another way."""


class PathRules:
    """A PathPolicy, ready to be held against paths."""

    __slots__ = ("_policy", "_rejected", "_rejected_encoded")

    def __init__(self, policy: PathPolicy) -> None:
        self._policy = policy
        judged = (
            (policy.backslash, b"\\", "a backslash"),
            (policy.semicolon, b";", "a semicolon"),
        )
        judged_encoded = (
            (policy.encoded_slash, b"/", "an encoded slash"),
            (policy.encoded_backslash, b"\\", "an encoded backslash"),
            (policy.semicolon, b";", "an encoded semicolon"),
        )
        self._rejected = tuple(one[1:] for one in judged if one[0] == "reject")
        self._rejected_encoded = tuple(one[1:] for one in judged_encoded if one[0] == "reject")

    def __repr__(self) -> str:
        return f"<PathRules {self._policy}>"

    def normalize(self, path: bytes) -> bytes:
        """Bring a raw path (without query) into normal form; most paths already are.

        Raises PathError, with the reason in words, for what is refused.
        """
        if is_plain(path):
            return path
        if not path.startswith(b"/"):
            raise PathError("the path does not start with a slash")
        if _NOT_ALLOWED.search(path):
            raise PathError("the path has a character that must be percent-encoded")
        if _BROKEN_ESCAPE.search(path):
            raise PathError("the path has a % that is not followed by two hexadecimal digits")
        path = _ESCAPE.sub(_normal_escape, path)
        if self._policy.merge_slashes:
            path = _SLASHES.sub(b"/", path)
        path = _resolve_dot_segments(path)
        if not _is_unmistakable(path):
            self._judge(path)
        return path

    def _judge(self, path: bytes) -> None:
        """Refuse what the policy rejects and what may climb, however many times it is encoded.

        `..%2f`, `..%5c`, `..;x` and the same encoded twice: none of them is a dot segment here,
        each is one somewhere (Tomcat, IIS, double decoders).
        """
        for mark, name in self._rejected:
            if mark in path:
                raise PathError(f"the path has {name}")
        read = path
        for _ in range(_MAX_DECODINGS + 1):
            if _DOT_SEGMENT.search(read):
                raise PathError("the path has an encoded dot segment")
            decoded = unquote_to_bytes(read)
            if decoded == read:
                return
            read = self._judge_decoded(decoded, read)

    def _judge_decoded(self, decoded: bytes, before: bytes) -> bytes:
        """Refuse what only shows once it is decoded; return what the rest is taken for."""
        if self._policy.overlong_utf8 == "reject" and _OVERLONG.search(decoded):
            raise PathError("the path has an overlong form of UTF-8")
        read = _OVERLONG_ASCII.sub(_short_form, decoded)
        if b"\0" in read:
            raise PathError("the path has an encoded NUL")
        for mark, name in self._rejected_encoded:
            if read.count(mark) > before.count(mark):
                raise PathError(f"the path has {name}")
        return read


def readings(path: bytes, most_segments: int) -> set[bytes]:
    """List what else instances may take a path in normal form for, in normal form too.

    Of each only the first segments are given, `most_segments` of them. Instances may decode it up
    to three times more, take a backslash for a slash, cut off the parameters of segments or
    what follows a `?` or `#`, and merge slashes, or do only some of that, in any order. Raises
    PathError where that comes to more than anybody could look at.
    """
    if _is_unmistakable(path):
        return set()
    found: set[bytes] = set()
    read = {path}
    for _ in range(_MAX_DECODINGS + 1):
        read |= {one.replace(b"\\", b"/") for one in read}
        read |= {_PARAMETERS.sub(b"", one) for one in read}
        read |= {_BEHIND_PATH.sub(b"", one) for one in read}
        if len(read) > _MOST_READINGS:
            raise PathError("the path can be read in too many ways")
        found |= read
        decoded = {unquote_to_bytes(one) for one in read}
        decoded |= {_OVERLONG_ASCII.sub(_short_form, one) for one in decoded}
        if decoded <= found:
            break
        read = decoded
    heads = {_head(one, most_segments) for one in found}
    heads |= {_head(_SLASHES.sub(b"/", one), most_segments) for one in found}
    return {_written(one) for one in heads} - {_head(path, most_segments)}


def _head(path: bytes, most_segments: int) -> bytes:
    return b"/".join(path.split(b"/", most_segments + 1)[: most_segments + 1])


def _written(read: bytes) -> bytes:
    """Write what was decoded as the paths of routes are written."""
    quoted = _NOT_WRITTEN.sub(lambda found: b"%%%02X" % found[0][0], read)
    return _ESCAPE.sub(_normal_escape, quoted)


def _normal_escape(escape: re.Match[bytes]) -> bytes:
    return _NORMAL_ESCAPES[escape[0]]


def _short_form(overlong: re.Match[bytes]) -> bytes:
    return bytes(((overlong[1][-1] & 1) << 6 | overlong[2][0] & 0x3F,))


def _resolve_dot_segments(path: bytes) -> bytes:
    """Resolve `.` and `..` as RFC 3986 §5.2.4 does; nothing climbs above the root."""
    resolved: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if resolved:
                resolved.pop()
        elif segment != b".":
            resolved.append(segment)
    if segments[-1] in {b".", b".."}:
        resolved.append(b"")
    return b"/" + b"/".join(resolved)
