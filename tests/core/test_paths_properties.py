"""Laws of the normal form, held against RFC 3986 by the letter and against all bytes."""

from __future__ import annotations

import posixpath
import re

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.paths import PathError, normalize

UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
# RFC 3986 §3.3: pchar without the escapes.
PCHAR = UNRESERVED.decode() + "!$&'()*+,;=:@"

plain_segments = st.sampled_from(["", ".", "..", "...", "a", "b.c", ".d", "e..", "~", "a;b"])
plain_paths = st.lists(plain_segments, min_size=1, max_size=8).map(
    lambda segments: "/" + "/".join(segments)
)
pieces = st.sampled_from(
    [
        *("/", "/", "//", ".", ".", "..", "\\", ";", "a", "x.y", "%"),
        *("%2e", "%2E", "%252e", "%25252e", "%2525252e", "%25%32%65", "%25", "25", "2e", "2E"),
        *("%2f", "%2F", "%252f", "%5c", "%255C", "%3b", "%253B", "%00", "%2500", "%41", "%20"),
        *("%c0%ae", "%C0%AF", "%25c0%25ae", "%e0%80%ae", "%c1%9c", "%c3%a9", "\x80", "?"),
    ]
)
nasty_paths = st.lists(pieces, max_size=10).map(lambda found: ("/" + "".join(found)).encode())
# No dots: behind an encoded slash they would be an encoded dot segment.
segments_to_keep = st.lists(
    st.sampled_from([*PCHAR.replace(".", ""), "%2F", "%2f", "%20", "%C3%a9", "%25x", "v1.2"]),
    min_size=1,
    max_size=8,
).map(lambda parts: "x" + "".join(parts))


def remove_dot_segments(path: str) -> str:
    """Do what RFC 3986 §5.2.4 says, step by step, 2A to 2E."""
    output: list[str] = []
    while path:
        if path.startswith(("../", "./")):
            path = path.partition("/")[2]
        elif path.startswith("/./") or path == "/.":
            path = "/" + path[3:]
        elif path.startswith("/../") or path == "/..":
            path = "/" + path[4:]
            if output:
                output.pop()
        elif path in {".", ".."}:
            path = ""
        else:
            end = path.find("/", 1)
            end = len(path) if end < 0 else end
            output.append(path[:end])
            path = path[end:]
    return "".join(output)


def decoded(path: bytes, *, only: bytes | None = None) -> bytes:
    """Decode each escape once; `only` those of these characters."""

    def decode(escape: re.Match[bytes]) -> bytes:
        char = bytes.fromhex(escape[1].decode())
        return char if only is None or char in only else escape[0]

    return re.sub(rb"%([0-9A-Fa-f]{2})", decode, path)


@given(plain_paths)
def test_plain_paths_agree_with_the_algorithm_of_the_rfc(path: str) -> None:
    merged = re.sub("/+", "/", path)
    normal = normalize(path.encode()).decode()

    assert remove_dot_segments(merged) == normal
    assert posixpath.normpath(merged) == (normal.rstrip("/") or "/")
    assert remove_dot_segments(path) == normalize(path.encode(), merge_slashes=False).decode()


@given(nasty_paths)
@example(b"/%25252e%25252e/")
def test_no_dot_segment_appears_after_up_to_three_decodings(path: bytes) -> None:
    try:
        read = normalize(path)
    except PathError:
        return
    for _ in range(4):
        segments = [segment.partition(b";")[0] for segment in re.split(rb"[/\\]", read)]
        assert not {b".", b".."} & set(segments)
        assert b"\0" not in read
        read = decoded(read)


@given(nasty_paths)
def test_the_normal_form_of_a_normal_form_is_itself(path: bytes) -> None:
    try:
        normal = normalize(path)
    except PathError:
        return
    assert normal == normalize(normal)


@given(nasty_paths)
def test_only_unreserved_escapes_dots_and_doubled_slashes_are_touched(path: bytes) -> None:
    try:
        normal = normalize(path)
    except PathError:
        return
    read = re.sub(b"/+", b"/", decoded(path, only=UNRESERVED)).decode()
    assert remove_dot_segments(read) == normal.decode()
    assert decoded(normal, only=UNRESERVED) == normal
    assert b"//" not in normal


@given(st.lists(segments_to_keep, min_size=1, max_size=5))
def test_all_else_stays_byte_for_byte(segments: list[str]) -> None:
    path = ("/" + "/".join(segments)).encode()

    assert path == normalize(path)


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"/" + tail)))
def test_any_bytes_give_a_path_or_a_path_error(path: bytes) -> None:
    try:
        normal = normalize(path)
    except PathError:
        return
    assert re.fullmatch(rb"/[\x21-\x7e]*", normal)
    assert not {*b"?#"} & {*normal}


@given(st.sets(st.sampled_from([bytes((code,)) for code in range(256)]), min_size=1, max_size=3))
def test_every_byte_is_taken_or_refused_in_the_same_way_wherever_it_stands(
    chars: set[bytes],
) -> None:
    """The quick look that most paths pass by must agree with the thorough one."""
    alone = {char: is_taken(b"/" + char + b"x") for char in chars}

    assert all(alone.values()) == is_taken(b"/a/./x" + b"x".join(chars) + b"x")


def is_taken(path: bytes) -> bool:
    try:
        normalize(path)
    except PathError:
        return False
    return True
