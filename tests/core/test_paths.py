"""The one normal form of a path: what it is, and what is refused."""

from __future__ import annotations

import pytest

from gateway.core.paths import PathError, normalize


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
        (b"//evil.example/x", b"/evil.example/x"),
        (b"/a///b//", b"/a/b/"),
        (b"/a//../b", b"/b"),
        # %XX of unreserved characters is decoded (RFC 3986 §6.2.2.2), all else stays as it came.
        (b"/%61%7Epi/%2D%2E%5F", b"/a~pi/-._"),
        (b"/%7euser", b"/~user"),
        (b"/%2e%2E/a", b"/a"),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/cgi-bin/.%2e/.%2e/etc/passwd", b"/etc/passwd"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/a%2fb%5cc", b"/a%2fb%5cc"),
        (b"/%20%25%3F%23%3b", b"/%20%25%3F%23%3b"),
        (b"/caf%C3%A9/%c3%a9", b"/caf%C3%A9/%c3%a9"),
        (b"/%ff%FE", b"/%ff%FE"),
        (b"/100%25%20sure", b"/100%25%20sure"),
        (b"/%2541", b"/%2541"),
        (b"/%01%7f", b"/%01%7f"),
        # Whoever decodes four times is not protected, and need not be.
        (b"/%2525252e%2525252e/b", b"/%2525252e%2525252e/b"),
    ],
)
def test_a_path_is_brought_into_normal_form(path: bytes, normal: bytes) -> None:
    assert normal == normalize(path)
    assert normalize(normal) == normal


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
        normalize(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/a/..%2fb",
        b"/a/..%2F..%2Fetc/passwd",
        b"/a%2f..",
        b"/a%2f..%2fb",
        b"/a/%2e%2e%2fb",
        b"/..%5cb",
        b"/..%5C..%5Cb",
        b"/a/..\\b",
        b"/a\\..\\b",
        b"/a\\.",
        b"/..;/b",
        b"/a/..;x=1/b",
        b"/a/.;/b",
        b"/a/..%3bx/b",
        b"/a/%2e%2e;/b",
        b"/%252e%252e/b",
        b"/%252e/b",
        b"/%25%32%65%25%32%65/b",
        b"/..%252fb",
        b"/..%255cb",
        b"/%25252e%25252e/b",
        b"/%25252e%25252e%25252fb",
        b"/..%25253bx/b",
        b"/%c0%ae%c0%ae/b",
        b"/%C0%AE%C0%AE/b",
        b"/..%c0%afb",
        b"/..%c1%9cb",
        b"/%e0%80%ae%e0%80%ae/b",
        b"/..%e0%80%afb",
        b"/..%f0%80%80%afb",
        b"/..%f0%80%81%9cb",
        b"/%f0%80%80%ae%f0%80%80%ae/b",
        b"/%25c0%25ae%25c0%25ae/b",
    ],
)
def test_what_some_instance_takes_for_a_dot_segment_is_refused(path: bytes) -> None:
    """Tomcat, IIS and whoever decodes twice climb out of a prefix with these."""
    with pytest.raises(PathError, match="dot segment"):
        normalize(path)


def test_slashes_can_be_kept_apart() -> None:
    assert normalize(b"/a//b/../c", merge_slashes=False) == b"/a//c"
    assert normalize(b"/a//..", merge_slashes=False) == b"/a/"
