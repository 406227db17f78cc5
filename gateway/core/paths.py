"""The one normal form of a request path, which is matched, filtered, rewritten and sent.

There is only one reading of a path in the gateway, so nobody can slip between two of them. Dot
segments are resolved, slashes that follow one another become one, %XX of unreserved characters are
decoded (RFC 3986 §6.2.2), and all else stays byte for byte: `%2F` stays `%2F`.

What some instance could take for a dot segment although it is none here is refused, not passed on.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_SUSPECT = re.compile(rb"[^!$&-.0-9:;=@A-Z_a-z~/]|//|/\.|\.;")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NOT_ALLOWED = re.compile(rb"[^\x21-\x7e]|[#?]")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SLASHES = re.compile(rb"/{2,}")
_SEPARATORS = re.compile(rb"[/\\]")

# Overlong UTF-8 forms of "." "/" and "\" (RFC 3629 §3 forbids them, some decoders take them).
_OVERLONG = (
    (re.compile(rb"\xc0\xae|\xe0\x80\xae|\xf0\x80\x80\xae"), b"."),
    (re.compile(rb"\xc0\xaf|\xe0\x80\xaf|\xf0\x80\x80\xaf"), b"/"),
    (re.compile(rb"\xc1\x9c|\xe0\x81\x9c|\xf0\x80\x81\x9c"), b"\\\\"),
)
_MAX_DECODINGS = 3


class PathError(ValueError):
    """A path that is not valid, or that an instance could read in another way."""


def normalize(path: bytes, *, merge_slashes: bool = True) -> bytes:
    """Bring a raw path (without query) into normal form; most paths already are.

    Raises PathError, with the reason in words, for what is refused.
    """
    if _SUSPECT.search(path) is None and path.startswith(b"/"):
        return path
    return _normalize_suspect(path, merge_slashes=merge_slashes)


def _normalize_suspect(path: bytes, *, merge_slashes: bool) -> bytes:
    if not path.startswith(b"/"):
        raise PathError("the path does not start with a slash")
    if _NOT_ALLOWED.search(path):
        raise PathError("the path has a character that must be percent-encoded")
    if _BROKEN_ESCAPE.search(path):
        raise PathError("the path has a % that is not followed by two hexadecimal digits")
    path = _ESCAPE.sub(_decode_unreserved, path)
    if merge_slashes:
        path = _SLASHES.sub(b"/", path)
    path = _resolve_dot_segments(path)
    _refuse_what_may_climb(path)
    return path


def _decode_unreserved(escape: re.Match[bytes]) -> bytes:
    code = int(escape[1], 16)
    if code == 0:
        raise PathError("the path has an encoded NUL")
    return bytes((code,)) if code in _UNRESERVED else escape[0]


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


def _refuse_what_may_climb(path: bytes) -> None:
    """Refuse what turns into a dot segment at an instance that decodes once more than it should.

    `..%2f`, `..%5c`, `..;x` and the same encoded twice: none of them is a dot segment here, each is
    one somewhere (Tomcat, IIS, double decoders).
    """
    decoded = path
    for _ in range(_MAX_DECODINGS + 1):
        for segment in _SEPARATORS.split(decoded):
            if segment.partition(b";")[0] in {b".", b".."}:
                raise PathError("the path has an encoded dot segment")
        further = unquote_to_bytes(decoded)
        for overlong, meant in _OVERLONG:
            further = overlong.sub(meant, further)
        if further == decoded:
            return
        if b"\0" in further:
            raise PathError("the path has an encoded NUL")
        decoded = further
