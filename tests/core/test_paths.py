"""The one normal form of a path: what it is, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from gateway.core.paths import PathError, PathRules, readings
from gateway.core.policy import PathPolicy

NORMALIZE = PathRules(PathPolicy()).normalize


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        # Nothing to do: byte for byte.
        (b"/", b"/"),
        (b"/api/users/42", b"/api/users/42"),
        (b"/api/users/", b"/api/users/"),
        (b"/a:b;c=d,e@f!$&'()*+", b"/a:b;c=d,e@f!$&'()*+"),
        (b"/x;v=1.2;w/y", b"/x;v=1.2;w/y"),
        (b'/"<>^`{|}', b'/"<>^`{|}'),
        (b"/.well-known/acme", b"/.well-known/acme"),
        (b"/a/...", b"/a/..."),
        (b"/a/..b/.c/d..", b"/a/..b/.c/d.."),
        (b"/a.;b/c", b"/a.;b/c"),
        # Dot segments (RFC 3986 §5.2.4, with its own examples).
        (b"/a/b/c/./../../g", b"/a/g"),
        (b"/mid/content=5/../6", b"/mid/6"),
        (b"/./a", b"/a"),
        (b"/a/.", b"/a/"),
        (b"/a/..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/..", b"/"),
        (b"/../../etc/passwd", b"/etc/passwd"),
        (b"/a/../../../b", b"/b"),
        # Slashes that follow one another.
        (b"//evil.example/x", b"//evil.example/x"),
        (b"/fetch/https://example.com", b"/fetch/https://example.com"),
        (b"/a///b//", b"/a///b//"),
        (b"/a//../b", b"/a/b"),
        # %XX of unreserved characters is decoded (RFC 3986 §6.2.2.2), all others are in capitals.
        (b"/%61%7Epi/%2D%2E%5F", b"/a~pi/-._"),
        (b"/%7euser", b"/~user"),
        (b"/%2e%2E/a", b"/a"),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/cgi-bin/.%2e/.%2e/etc/passwd", b"/etc/passwd"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/a%2fb%2Fc", b"/a%2Fb%2Fc"),
        (b"/%20%25%3F%23%3b", b"/%20%25%3F%23%3B"),
        (b"/caf%C3%A9/%c3%a9", b"/caf%C3%A9/%C3%A9"),
        (b"/%ff%FE", b"/%FF%FE"),
        (b"/100%25%20sure", b"/100%25%20sure"),
        (b"/%2541", b"/%2541"),
        (b"/%01%7f", b"/%01%7F"),
        # Whoever decodes four times is not protected, and need not be.
        (b"/%2525252e%2525252e/b", b"/%2525252e%2525252e/b"),
    ],
)
def test_a_path_is_brought_into_normal_form(path: bytes, normal: bytes) -> None:
    assert normal == NORMALIZE(path)
    assert NORMALIZE(normal) == normal


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"*",
        b"a/b",
        b"http://users/x",
        b"/a b",
        b"/a\tb",
        b"/a\r\nX-Evil: 1",
        b"/a\0b",
        b"/\x7f",
        "/caf\u00e9".encode(),
        b"/a?b",
        b"/a#b",
        b"/100%",
        b"/%4",
        b"/%zz",
        b"/%u002e%u002e/",
        b"/%+41",
        b"/cgi-bin/.%%32%65/.%%32%65/etc/passwd",
        b"/%00",
        b"/a%00.html",
        b"/a%2500.html",
        b"/a%252500.html",
    ],
)
def test_a_path_that_is_not_valid_is_refused(path: bytes) -> None:
    with pytest.raises(PathError, match="the path "):
        NORMALIZE(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/a/..%2fb",
        b"/a/..%2F..%2Fetc/passwd",
        b"/a%2f..",
        b"/a%2f..%2fb",
        b"/a/%2e%2e%2fb",
        b"/..;/b",
        b"/a/..;x=1/b",
        b"/a/.;/b",
        b"/a/..%3bx/b",
        b"/a/%2e%2e;/b",
        b"/%252e%252e/b",
        b"/%252e/b",
        b"/%25%32%65%25%32%65/b",
        b"/..%252fb",
        b"/%25252e%25252e/b",
        b"/%25252e%25252e%25252fb",
        b"/..%25253bx/b",
        b"/a/..%3Fx",
        b"/a/..%23/b",
        b"/a/..%253fx",
        b"/a/.%2523",
    ],
)
def test_what_some_instance_takes_for_a_dot_segment_is_refused(path: bytes) -> None:
    """Tomcat, IIS and whoever decodes twice climb out of a prefix with these."""
    with pytest.raises(PathError, match="dot segment"):
        NORMALIZE(path)


BACKSLASHES = [
    *(b"/..%5cb", b"/..%5C..%5Cb", b"/a/..%5Cb", b"/a%5c..%5Cb", b"/a%5C.", b"/..%255cb"),
    *(b"/a/..\\b", b"/a\\..\\b", b"/a\\.", b"/..%c1%9cb", b"/..%f0%80%81%9cb"),
]


@pytest.mark.parametrize("path", BACKSLASHES)
def test_a_backslash_behind_dots_is_refused_whatever_the_policy_is(path: bytes) -> None:
    with pytest.raises(PathError, match=r"backslash|overlong"):
        NORMALIZE(path)
    with pytest.raises(PathError, match="dot segment"):
        normalize_keeping(path, "backslash", "encoded_backslash", "overlong_utf8")


OVERLONG = [
    b"/%c0%ae%c0%ae/b",
    b"/%C0%AE%C0%AE/b",
    b"/..%c0%afb",
    b"/%e0%80%ae%e0%80%ae/b",
    b"/..%e0%80%afb",
    b"/..%f0%80%80%afb",
    b"/%f0%80%80%ae%f0%80%80%ae/b",
    b"/%25c0%25ae%25c0%25ae/b",
    b"/%f8%80%80%80%ae./b",
    b"/%fc%80%80%80%80%ae./b",
]


@pytest.mark.parametrize("path", OVERLONG)
def test_an_overlong_dot_segment_is_refused_whatever_the_policy_is(path: bytes) -> None:
    with pytest.raises(PathError, match="overlong form of UTF-8"):
        NORMALIZE(path)
    with pytest.raises(PathError, match="dot segment"):
        normalize_keeping(path, "overlong_utf8")


@pytest.mark.parametrize("path", [b"/%c0%80", b"/a%e0%80%80b", b"/%25c0%2580"])
def test_an_overlong_nul_is_refused_whatever_the_policy_is(path: bytes) -> None:
    with pytest.raises(PathError, match="encoded NUL"):
        normalize_keeping(path, "overlong_utf8")


# --- The policy ----------------------------------------------------------------------------------


def normalize_keeping(path: bytes, *keys: str) -> bytes:
    kept: dict[str, Any] = dict.fromkeys(keys, "keep")
    return PathRules(PathPolicy(**kept)).normalize(path)


def normalize_rejecting(path: bytes, key: str) -> bytes:
    rejected: dict[str, Any] = {key: "reject"}
    return PathRules(PathPolicy(**rejected)).normalize(path)


JUDGED = [
    ("encoded_slash", b"/a%2Fb", "an encoded slash"),
    ("encoded_slash", b"/a%252fb", "an encoded slash"),
    ("encoded_backslash", b"/a%5Cb", "an encoded backslash"),
    ("encoded_backslash", b"/a%25255cb", "an encoded backslash"),
    ("backslash", b"/a\\b", "a backslash"),
    ("semicolon", b"/a;b", "a semicolon"),
    ("semicolon", b"/a%3Bb", "an encoded semicolon"),
    ("overlong_utf8", b"/a%C1%A1", "an overlong form of UTF-8"),
    ("overlong_utf8", b"/a%C0%BF", "an overlong form of UTF-8"),
    ("overlong_utf8", b"/a%E0%9F%BF", "an overlong form of UTF-8"),
    ("overlong_utf8", b"/a%25F0%258F%25BF%25BF", "an overlong form of UTF-8"),
]


@pytest.mark.parametrize(("key", "path", "what"), JUDGED)
def test_the_policy_says_what_becomes_of_what_instances_read_in_different_ways(
    key: str, path: bytes, what: str
) -> None:
    with pytest.raises(PathError, match=f"^the path has {what}$"):
        normalize_rejecting(path, key)
    assert normalize_keeping(path, key).lower() == path.lower()


def test_by_default_only_what_urls_have_a_use_for_is_kept() -> None:
    kept = set()
    for key, path, _ in JUDGED:
        with suppress(PathError):
            NORMALIZE(path)
            kept.add(key)

    assert {"encoded_slash", "semicolon"} == kept


@pytest.mark.parametrize("path", [b"/a%C3%A9", b"/%C0", b"/%C0propos", b"/a%E0%A0%80", b"/%FCber"])
def test_what_is_not_overlong_is_not_taken_for_it(path: bytes) -> None:
    """Old sites have paths in Latin-1; they are no valid UTF-8, but no disguise either."""
    assert path == NORMALIZE(path)


def test_slashes_can_be_merged() -> None:
    rules = PathRules(PathPolicy(merge_slashes=True))

    assert rules.normalize(b"//evil.example/x") == b"/evil.example/x"
    assert rules.normalize(b"/a///b//") == b"/a/b/"
    assert rules.normalize(b"/a//../b") == b"/b"


def test_rules_show_their_policy() -> None:
    assert "encoded_slash='keep'" in repr(PathRules(PathPolicy()))


# --- What else a path may be taken for -----------------------------------------------------------


@pytest.mark.parametrize("path", [b"/", b"/a/b.c", b"/caf%C3%A9", b"/a%20b", b"/100%25", b"/a+b"])
def test_most_paths_can_be_read_in_one_way_only(path: bytes) -> None:
    assert set() == readings(path, 9)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (b"/admin%2Fx", b"/admin/x"),
        (b"/%2Fadmin", b"/admin"),
        (b"/admin%252Fx", b"/admin/x"),
        (b"/admin%25252Fx", b"/admin/x"),
        (b"/admin;a=b/x", b"/admin/x"),
        (b"/;/admin", b"/admin"),
        (b"/admin%3Ba/x", b"/admin/x"),
        (b"/a%3Bv=1/x", b"/a;v=1/x"),
        (b"/admin\\x", b"/admin/x"),
        (b"/admin%5Cx", b"/admin/x"),
        (b"//admin", b"/admin"),
        (b"/a//b", b"/a/b"),
        (b"/%2561dmin", b"/admin"),
        (b"/%C1%A1dmin", b"/admin"),
        (b"/admin%C0%AFx", b"/admin/x"),
        (b"/a%2Bb", b"/a+b"),
        (b"/a|b", b"/a%7Cb"),
        (b"/caf%25C3%25a9", b"/caf%C3%A9"),
        (b"/%25252525252Fx", b"/%25252Fx"),
        (b"/admin%3Fx/y", b"/admin"),
        (b"/admin%23x", b"/admin"),
        (b"/admin%253Fx", b"/admin"),
        (b"/admin%2Fx%3Fy", b"/admin/x"),
    ],
)
def test_other_readings_of_a_path_are_written_as_the_paths_of_routes_are(
    path: bytes, read: bytes
) -> None:
    assert read in readings(path, 9)


def test_only_the_first_segments_of_a_reading_are_given() -> None:
    assert {b"/a/b"} == readings(b"/a%2Fb/c/d/e", 2)


def test_a_path_that_can_be_read_in_too_many_ways_is_refused() -> None:
    with pytest.raises(PathError, match="in too many ways"):
        readings(b"/a;b\\c%3Bd%5Ce%253Bf%255Cg/x", 9)
