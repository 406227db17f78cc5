"""Laws of the normal form, held against RFC 3986 by the letter and against all bytes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from itertools import product
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core import paths
from gateway.core.paths import PathError, PathRules, is_plain, readings
from gateway.core.policy import PathPolicy

NORMALIZE = PathRules(PathPolicy()).normalize
judgements = st.sampled_from(["reject", "keep"])
all_rules = st.builds(
    PathPolicy,
    merge_slashes=st.booleans(),
    encoded_slash=judgements,
    encoded_backslash=judgements,
    backslash=judgements,
    semicolon=judgements,
    overlong_utf8=judgements,
).map(PathRules)

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
        *("%E0%A4%85", "%F0%9F", "%3f", "%253F", "%23"),
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


def in_capitals(path: bytes) -> bytes:
    return re.sub(rb"%[0-9A-Fa-f]{2}", lambda escape: escape[0].upper(), path)


@given(plain_paths)
def test_plain_paths_agree_with_the_algorithm_of_the_rfc(path: str) -> None:
    merged = re.sub("/+", "/", path)
    merging = PathRules(PathPolicy(merge_slashes=True))
    normal = merging.normalize(path.encode()).decode()

    assert remove_dot_segments(merged) == normal
    assert posixpath.normpath(merged) == (normal.rstrip("/") or "/")
    assert remove_dot_segments(path) == NORMALIZE(path.encode()).decode()


@given(nasty_paths, all_rules)
@example(b"/%25252e%25252e/", PathRules(PathPolicy()))
def test_no_dot_segment_appears_after_up_to_three_decodings(path: bytes, rules: PathRules) -> None:
    try:
        read = rules.normalize(path)
    except PathError:
        return
    for _ in range(4):
        segments = [re.split(rb"[;?#]", segment)[0] for segment in re.split(rb"[/\\]", read)]
        assert not {b".", b".."} & set(segments)
        assert b"\0" not in read
        read = decoded(read)


@given(nasty_paths, all_rules)
def test_the_normal_form_of_a_normal_form_is_itself(path: bytes, rules: PathRules) -> None:
    try:
        normal = rules.normalize(path)
    except PathError:
        return
    assert normal == rules.normalize(normal)


@given(nasty_paths, all_rules)
def test_a_plain_path_is_taken_as_it_is_whatever_the_policy_is(
    path: bytes, rules: PathRules
) -> None:
    """The quick look that most paths pass by must agree with the thorough one."""
    if is_plain(path):
        assert path == rules.normalize(path)
        assert path == rules.normalize(path + b"/.").removesuffix(b"/") or path.endswith(b"/")
        assert set() == readings(path, 99)


PLAIN_SEGMENT = PCHAR.replace(";", "").encode()


def is_plain_by_hand(path: bytes) -> bool:
    """Decide with a plain loop what `is_plain` decides with one expression."""
    if not path.startswith(b"/"):
        return False
    at_start = False
    for code in path:
        if code == ord("/"):
            if at_start:
                return False
            at_start = True
        elif code not in PLAIN_SEGMENT or (at_start and code == ord(".")):
            return False
        else:
            at_start = False
    return True


def is_unmistakable_by_hand(path: bytes) -> bool:
    """Decide with a plain loop whether a path in normal form can be read in one way only."""
    text = path
    while b"%" in text:
        before, _, rest = text.partition(b"%")
        long = re.match(rb"E0%[AB]|F0%[9AB]", rest)
        code = int(rest[:2], 16) if re.match(rb"[0-9A-F]{2}", rest) else 0
        if not long and (chr(code) in "\0%/\\;?#" + "!$&'()*+,=:@" or code in LONG_FORMS):
            return False
        text = before + b"x" + rest[long.end() if long else 2 :]
    return all(code in b"/" + PLAIN_SEGMENT for code in text) and bool(
        re.match(b"/", text) and b"//" not in text
    )


LONG_FORMS = {0xC0, 0xC1, 0xE0, 0xF0, 0xF8, 0xFC}


@pytest.mark.parametrize("length", range(8))
def test_a_plain_path_is_one_that_a_plain_loop_finds_plain(length: int) -> None:
    """All short strings of the bytes that decide: some CPythons match too much (3.11.2)."""
    for letters in product((b"/", b".", b"a", b";", b"%", b"\n"), repeat=length):
        path = b"".join(letters)
        assert is_plain_by_hand(path) == bool(is_plain(path)), path


@given(nasty_paths | plain_paths.map(str.encode) | st.binary(max_size=12))
@example(b"/a/.")
@example(b"/public/.")
@example(b"/a//")
def test_whatever_a_plain_loop_finds_plain_is_plain(path: bytes) -> None:
    assert is_plain_by_hand(path) == bool(is_plain(path))


@pytest.mark.parametrize("code", range(256))
def test_an_escape_is_unmistakable_if_a_plain_loop_says_so(code: int) -> None:
    for before, after in product((b"/", b"/a", b"/%41/"), (b"", b"b", b"/", b"//", b"%B", b"%A4")):
        path = b"%b%%%02X%b" % (before, code, after)
        assert is_unmistakable_by_hand(path) == bool(paths._is_unmistakable(path)), path


STEPS: dict[str, Callable[[bytes], bytes]] = {
    "decode": decoded,
    "short": lambda path: re.sub(
        rb"([\xc0\xc1]|\xe0[\x80\x81]|\xf0\x80[\x80\x81])([\x80-\xbf])",
        lambda one: bytes([(one[1][-1] & 1) << 6 | one[2][0] & 63]),
        path,
    ),
    "backslash": lambda path: path.replace(b"\\", b"/"),
    "parameters": lambda path: re.sub(rb";[^/]*", b"", path),
    "slashes": lambda path: re.sub(rb"/+", b"/", path),
}
instances = st.lists(st.sampled_from(sorted(STEPS)), max_size=9).filter(
    lambda steps: steps.count("decode") <= 3
)


@given(nasty_paths, all_rules, instances)
@example(b"/%25", PathRules(PathPolicy()), ["decode"])
@example(b"/.%252e%c0%ae", PathRules(PathPolicy(overlong_utf8="keep")), ["decode"])
def test_whatever_an_instance_does_to_a_path_it_was_thought_of(
    path: bytes, rules: PathRules, steps: list[str]
) -> None:
    """Tomcat cuts parameters off and then decodes, IIS takes backslashes, some decode twice."""
    try:
        read = rules.normalize(path)
        expected = {read, *readings(read, 99)}
    except PathError:
        return
    for step in steps:
        read = STEPS[step](read)

    assert not {b".", b".."} & set(re.split(rb"[/\\]", read))
    assert as_route(read) in {as_route(one) for one in expected}


def as_route(path: bytes) -> bytes:
    """Write a path as those of routes are, but for slashes in a row."""
    path = re.sub(rb"%(?![0-9A-Fa-f]{2})", b"%25", path)
    quoted = quote_from_bytes(path, safe="/!$&'()*+,;=:@%").encode()
    return re.sub(rb"/+", b"/", in_capitals(decoded(quoted, only=UNRESERVED)))


@given(nasty_paths)
def test_only_unreserved_escapes_and_dots_are_touched(path: bytes) -> None:
    try:
        normal = NORMALIZE(path)
    except PathError:
        return
    read = in_capitals(decoded(path, only=UNRESERVED)).decode()
    assert remove_dot_segments(read) == normal.decode()
    assert decoded(normal, only=UNRESERVED) == normal


@given(st.lists(segments_to_keep, min_size=1, max_size=5))
def test_all_else_stays_byte_for_byte_but_for_the_case_of_escapes(segments: list[str]) -> None:
    path = ("/" + "/".join(segments)).encode()

    assert in_capitals(path) == NORMALIZE(path)


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda tail: b"/" + tail)))
def test_any_bytes_give_a_path_or_a_path_error(path: bytes) -> None:
    try:
        normal = NORMALIZE(path)
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
        NORMALIZE(path)
    except PathError:
        return False
    return True
