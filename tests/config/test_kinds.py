"""Kinds of values: what each gives, and the words for what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.config.kinds import (
    AddedPrefix,
    Duration,
    HostPattern,
    InstanceUrl,
    Method,
    Name,
    Rate,
    RoutePath,
    Size,
    Timeout,
    Url,
)
from gateway.core.paths import PathRules
from gateway.core.policy import PathPolicy


def read(kind: Any, value: object) -> object:
    return TypeAdapter(kind).validate_python(value)


def refusal(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as refused:
        read(kind, value)
    return refused.value.errors()[0]["msg"].removeprefix("Value error, ")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Timeout, "250ms", 0.25),
        (Timeout, "off", None),
        (Timeout, "none", None),
        (Duration, "1m30s", 90.0),
        (Size, "64KiB", 65_536),
        (Size, 4_096, 4_096),
        (Size, 0, 0),
        (Rate, "1KiB", 1024),
        (Rate, "off", None),
        (Name, "user-service_v1.2", "user-service_v1.2"),
        (Method, "get", b"GET"),
        (Method, "M-SEARCH", b"M-SEARCH"),
        (HostPattern, "API.example.com.", "api.example.com"),
        (HostPattern, "*.Example.com", "*.example.com"),
        (HostPattern, "localhost", "localhost"),
        (HostPattern, "192.0.2.1", "192.0.2.1"),
        (HostPattern, "user_service", "user_service"),
        (RoutePath, "/", b"/"),
        (RoutePath, "/api/users", b"/api/users"),
        (RoutePath, "/api/", b"/api/"),
        (RoutePath, "/a%2Fb;v=1/:x@y", b"/a%2Fb;v=1/:x@y"),
        (RoutePath, "/caf%C3%A9", b"/caf%C3%A9"),
        (RoutePath, "/wild*card", b"/wild*card"),
        (AddedPrefix, "/v1", b"/v1"),
        (Url, "http://127.0.0.1:9001", InstanceUrl("http", "127.0.0.1", 9001)),
        (Url, "http://127.0.0.1:9001/", InstanceUrl("http", "127.0.0.1", 9001)),
        (Url, "https://API.example.com", InstanceUrl("https", "api.example.com", 443)),
        (Url, "http://user_service", InstanceUrl("http", "user_service", 80)),
        (Url, "http://[::1]:80", InstanceUrl("http", "::1", 80)),
        (Url, "https://localhost.:8443", InstanceUrl("https", "localhost.", 8443)),
    ],
)
def test_a_right_value_becomes_the_cores(kind: Any, value: object, expected: object) -> None:
    assert expected == read(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Timeout, "2 sec", "'2 sec' is not a duration; write 250ms, 5s or 1m"),
        (Timeout, 5, "5 is not a duration; write 5s (or 5ms)"),
        (Timeout, 0, "0 is not a duration; write 250ms, 5s or 1m"),
        (Timeout, True, "true is not a duration; write 250ms, 5s or 1m"),
        (Timeout, "0s", "'0s' leaves no time at all; write off for no limit"),
        (Duration, "off", "'off' is not a duration; write 250ms, 5s or 1m"),
        (Duration, "0ms", "'0ms' is no time at all; write 250ms, 5s or 1m"),
        (Size, "64K", "'64K' is not a size; write 64KiB, 1MiB or 10MB"),
        (Rate, 0, "0 asks for nothing; write off for no limit"),
        (Size, -1, "'-1' is not a size; write 64KiB, 1MiB or 10MB"),
        (Size, 1.5, "1.5 is not a size; write 64KiB, 1MiB or 10MB"),
        (Size, True, "true is not a size; write 64KiB, 1MiB or 10MB"),
        (Name, 5, "5 is not a name; write it in quotes"),
        (Method, "G ET", "'G ET' is not an HTTP method; write GET or POST"),
        (Method, 5, "5 is not an HTTP method; write GET or POST"),
        (
            Method,
            "connect",
            "CONNECT is not for a gateway (RFC 9110 §9.3.6), so it can never match",
        ),
        (HostPattern, "*", "'*' is any host; leave hosts out for that"),
        (HostPattern, 5, "5 is not a host name; write api.example.com"),
        (
            HostPattern,
            "https://api.test/x",
            (
                "'https://api.test/x' is not a host name; "
                "leave scheme, port and path out: write api.test"
            ),
        ),
        (
            HostPattern,
            "/x",
            "'/x' is not a host name; leave scheme, port and path out: write api.example.com",
        ),
        (
            HostPattern,
            "api.test:80",
            "'api.test:80' is not a host name; ports are not matched: write api.test",
        ),
        (
            HostPattern,
            "api.*.test",
            "'api.*.test' is not a host name; '*.' may only stand in front: write *.example.com",
        ),
        (
            HostPattern,
            "bücher.test",
            "'bücher.test' is not a host name; write it as it is sent: xn--bcher-kva.test",
        ),
        (
            HostPattern,
            "ü" * 64,
            f"{'ü' * 64!r} is not a host name; write it as it is sent: xn--…",
        ),
        (
            HostPattern,
            "a b",
            "'a b' is not a host name; write api.example.com or *.example.com",
        ),
        (
            HostPattern,
            ".".join(["a" * 63] * 4),
            (
                f"'{'.'.join(['a' * 63] * 4)}' is not a host name; "
                "write api.example.com or *.example.com"
            ),
        ),
        (RoutePath, "api", "'api' is not a path; write it with a slash in front: /api"),
        (RoutePath, 5, "5 is not a path; write it with a slash in front: /api/users"),
        (RoutePath, "/a?x=1", "a path has no query; write /a"),
        (RoutePath, "/a#top", "a path has no fragment; write /a"),
        (RoutePath, "/api/*", "'*' is no pattern here; path_prefix takes all that is below it"),
        (RoutePath, "/a/**/b", "'*' is no pattern here; path_prefix takes all that is below it"),
        (RoutePath, "/café", "'/café' needs percent-encoding; write /caf%C3%A9"),
        (RoutePath, "/a b", "'/a b' needs percent-encoding; write /a%20b"),
        (
            RoutePath,
            "/u/{id}",
            (
                "'/u/{id}' looks like a pattern, and a path is none; "
                "write path_prefix with what stands before it "
                "(path_prefix: /api takes all that is below /api)"
            ),
        ),
        (RoutePath, "/%41pi", "'/%41pi' is not in normal form; write /Api"),
        (RoutePath, "/a%2fb", "'/a%2fb' is not in normal form; write /a%2Fb"),
        (RoutePath, "/a/../b/./c", "'/a/../b/./c' is not in normal form; write /b/c"),
        (
            RoutePath,
            "/100%",
            (
                "'/100%' can never match: "
                "the path has a % that is not followed by two hexadecimal digits"
            ),
        ),
        (
            RoutePath,
            "/a/..%2Fb",
            "'/a/..%2Fb' can never match: the path has an encoded dot segment",
        ),
        (AddedPrefix, "/v1/", "must not end with a slash; write /v1"),
        (AddedPrefix, "/v1//x", "has slashes that follow one another; write /v1/x"),
        (AddedPrefix, "/", "must not end with a slash; leave it out"),
        (Url, 5, "5 is not a URL; write http://127.0.0.1:9001"),
        (Url, "http://a b", "'http://a b' is not a URL; write http://127.0.0.1:9001"),
        (
            Url,
            "127.0.0.1:9001",
            "'127.0.0.1:9001' is not an http or https URL; write http://127.0.0.1:9001",
        ),
        (Url, "tcp://a:1", "'tcp://a:1' is not an http or https URL; write http://a:1"),
        (Url, "http://", "'http://' is not an http or https URL; write http://127.0.0.1:9001"),
        (Url, "http://a:1/x", "only scheme, host and port can stand here; write http://a:1"),
        (Url, "http://a:1?x", "only scheme, host and port can stand here; write http://a:1"),
        (Url, "http://u:p@a:1", "only scheme, host and port can stand here; write http://a:1"),
        (
            Url,
            "http://a:0",
            "'http://a:0' has no valid host and port; write http://127.0.0.1:9001",
        ),
        (
            Url,
            "http://:80",
            "'http://:80' has no valid host and port; write http://127.0.0.1:9001",
        ),
        (
            Url,
            "http://-a",
            "'http://-a' has no valid host and port; write http://127.0.0.1:9001",
        ),
        (
            Url,
            "http://[fe80::1%eth0]:80",
            "'http://[fe80::1%eth0]:80' has no valid host and port; write http://127.0.0.1:9001",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(
    kind: Any, value: object, message: str
) -> None:
    assert message == refusal(kind, value)


@pytest.mark.parametrize("port", ["x", "70000", "-1"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    assert refusal(Url, f"http://a:{port}").startswith(f"'http://a:{port}' is not a URL; ")


@pytest.mark.parametrize(
    "name", ["", "-a", "a/b", "a b", "../agent", "a..b", "é", "a" * 129, "a\n"]
)
def test_a_name_that_could_lead_elsewhere_in_consul_is_refused(name: str) -> None:
    assert refusal(Name, name).startswith(f"{name!r} is not a name; use letters, digits,")


@given(st.text(alphabet="/.%2eEfFaA*?#;:{} é~-", max_size=16).map("/".__add__))
def test_a_path_that_is_taken_is_in_normal_form_so_a_request_can_have_it(path: str) -> None:
    try:
        taken = read(RoutePath, path)
    except ValidationError:
        return
    assert isinstance(taken, bytes)
    assert PathRules(PathPolicy(merge_slashes=False)).normalize(taken) == taken
