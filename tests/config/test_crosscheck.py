"""Duplicates, conflicts and contradictions between entries that are each right."""

from __future__ import annotations

import re

import pytest

from gateway.config.crosscheck import cross_check, odd_things
from gateway.config.document import read_document
from gateway.config.shape import check_shape


def problems_of(text: str) -> list[str]:
    document = read_document(text, file="f", env={})
    return [str(problem).removeprefix("f:") for problem in sorted(cross_check(document))]


def problems_of_matches(*matches: str) -> list[str]:
    """Check a file with a route on each line from line 2 on."""
    return problems_of(
        "routes:\n" + "\n".join(f"  - {{match: {match}, service: x}}" for match in matches)
    )


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            "{path: /a}",
            "{path: /a}",
            "/a is taken by routes[0] (line 2) too, so this one can never match",
        ),
        (
            "{path_prefix: /a}",
            "{path_prefix: /a/}",
            "/a is taken by routes[0] (line 2) too, so this one can never match",
        ),
        (
            "{path: /a, methods: [GET, PUT]}",
            "{path: /a, methods: [put]}",
            "PUT /a is taken by routes[0] (line 2) too, so this one can never match",
        ),
        (
            "{path: /a, methods: [GET, PUT]}",
            "{path: /a, methods: [PUT, GET, POST]}",
            "GET, PUT /a is taken by routes[0] (line 2) too",
        ),
        (
            "{path: /a, hosts: [a.test, b.test]}",
            "{path: /a, hosts: [c.test, B.test]}",
            "/a on b.test is taken by routes[0] (line 2) too",
        ),
    ],
)
def test_routes_that_take_the_same_are_told_with_what_they_share(
    first: str, second: str, said: str
) -> None:
    assert problems_of_matches(first, second) == [f"3:6: routes[1].match: {said}"]


def test_routes_that_differ_do_not_conflict() -> None:
    assert (
        problems_of_matches("{path: /a}", "{path_prefix: /a}", "{path: /a, methods: [GET]}") == []
    )


def test_a_route_that_is_wrong_elsewhere_is_still_compared() -> None:
    text = (
        "routes:\n"
        "  - {match: {path: /a}, service: 5, wings: 2}\n"
        "  - {match: {path: /%%%}, service: x}\n"
        "  - {match: {path: /a}}\n"
        "  - nothing\n"
    )

    assert problems_of(text) == [
        "4:6: routes[2].match: /a is taken by routes[0] (line 2) too, so this one can never match"
    ]


def test_a_match_that_could_not_be_read_as_a_whole_is_not_compared() -> None:
    """Without the hosts that it should have, it would seem to take what the other one takes."""
    assert problems_of_matches("{path: /a}", "{path: /a, hosts: '${UNSET}'}") == []
    assert problems_of_matches("{path: /a}", "{path: /a, hosts: }") == []


def test_an_id_that_two_routes_have_is_told_at_the_second() -> None:
    text = "routes:\n  - id: a\n  - {id: b}\n  - match: {path: /}\n    id: a\n  - id: [a]\n"

    assert problems_of(text) == ["5:9: routes[2].id: 'a' is the id of routes[0] (line 2) too"]


def test_a_server_that_stands_twice_is_told_whatever_its_scheme_and_weight() -> None:
    text = (
        "services:\n"
        "  a:\n"
        "    servers:\n"
        "      - http://h\n"
        "      - http://h:81\n"
        "      - {url: 'https://H:80', weight: 5}\n"
        "      - {url: 5}\n"
        "  b: {servers: ['http://h']}\n"
        "  c: 5\n"
    )

    assert problems_of(text) == [
        "6:9: services.a.servers[2]: h:80 is servers[0] (line 4) too; give it more weight there"
    ]


@pytest.mark.parametrize(
    ("defaults", "own", "expected"),
    [
        ("{}", "{open_for: 5m, max_open_for: 5m}", []),
        ("{}", "{open_for: 10m}", ["services.a 10m 5m"]),
        ("{open_for: 20s}", "{max_open_for: 15s}", ["services.a 20s 15s"]),
        ("{open_for: 10m}", "{window: 5s}", ["defaults 10m 5m"]),
        ("{open_for: 10m}", "{open_for: 11m}", ["defaults 10m 5m", "services.a 11m 5m"]),
    ],
)
def test_a_breaker_cannot_start_with_more_than_its_longest_time(
    defaults: str, own: str, expected: list[str]
) -> None:
    text = f"defaults: {{circuit_breaker: {defaults}}}\nservices: {{a: {{circuit_breaker: {own}}}}}"
    words = re.compile(
        r".* (.*)\.circuit_breaker\..*: open_for \((.*)\) is .* max_open_for \((.*)\)"
    )

    assert expected == [words.sub(r"\1 \2 \3", problem) for problem in problems_of(text)]


def test_a_breaker_that_could_not_be_read_as_a_whole_is_not_compared() -> None:
    assert problems_of("defaults: {circuit_breaker: {open_for: , max_open_for: 1s}}") == []


def test_the_place_of_a_contradiction_is_the_value_that_makes_it() -> None:
    text = "services:\n  a:\n    circuit_breaker:\n      open_for: 10m\n"

    assert problems_of(text) == [
        "4:17: services.a.circuit_breaker.open_for: open_for (10m) is longer than max_open_for (5m)"
    ]


@pytest.mark.parametrize(
    ("defaults", "own", "expected"),
    [
        (
            "{}",
            "{balance: hash}",
            ["services.a.balance: hash needs hash_on; write hash_on: client_ip"],
        ),
        (
            "{balance: hash}",
            "{}",
            ["defaults.balance: hash needs hash_on; write hash_on: client_ip"],
        ),
        ("{hash_on: path}", "{balance: hash}", []),
        ("{}", "{balance: hash, hash_on: {header: X-User}}", []),
        (
            "{}",
            "{sticky: {ttl: 1h}}",
            ["services.a.sticky: needs cookie, the name of one; write cookie: route"],
        ),
        ("{}", "{sticky: 5}", []),
        ("{sticky: {ttl: 1h}}", "{}", []),
        ("{sticky: {cookie: route}}", "{sticky: {ttl: 1h}}", []),
    ],
)
def test_balancing_is_whole_or_not_at_all(defaults: str, own: str, expected: list[str]) -> None:
    problems = problems_of(f"defaults: {defaults}\nservices: {{a: {own}}}")

    assert expected == [problem.partition(": ")[2] for problem in problems]


@pytest.mark.parametrize("text", ["5", "routes: 5\nservices: 5\ndefaults: 5", "services: {a: [x]}"])
def test_what_has_no_such_entries_has_nothing_to_compare(text: str) -> None:
    assert problems_of(text) == []


def warnings_of(text: str) -> list[str]:
    document = read_document(text, file="f", env={})
    file, problems = check_shape(document)
    assert problems == []
    assert file is not None
    return [str(problem) for problem in odd_things(document, file)]


def test_a_service_to_which_no_route_goes_is_odd() -> None:
    text = "version: 1\nservices:\n  a: {}\n  b: {}\nroutes:\n  - {match: {path: /}, service: b}\n"

    assert warnings_of(text) == ["f:3:3: services.a: no route goes there"]


def test_a_service_that_is_nearly_one_with_an_entry_is_odd() -> None:
    text = (
        "version: 1\nservices:\n  orders: {}\nroutes:\n  - {match: {path: /}, service: order}\n"
        "  - {match: {path: /a}, service: users}\n"
    )

    assert warnings_of(text) == [
        "f:5:33: routes[0].service: 'order' has no entry in services; did you mean 'orders'?",
        "f:3:3: services.orders: no route goes there",
    ]


@pytest.mark.parametrize(
    ("balancing", "is_odd"),
    [
        ("{hash_on: path}", True),
        ("{hash_on: path, balance: p2c}", True),
        ("{hash_on: path, balance: hash}", False),
        ("{}", False),
    ],
)
def test_something_to_hash_on_without_hashing_is_odd(balancing: str, *, is_odd: bool) -> None:
    text = f"version: 1\nservices: {{b: {balancing}}}\nroutes: [{{match: {{path: /}}, service: b}}]"

    odd = ["f:2:25: services.b.hash_on: means nothing without balance: hash"]
    assert warnings_of(text) == (odd if is_odd else [])


def test_a_file_without_routes_is_odd() -> None:
    assert warnings_of("version: 1\nroutes: []") == [
        "f:2:9: routes: is empty: every request gets 404"
    ]


@pytest.mark.parametrize(
    ("paths", "match", "said"),
    [
        (
            "{merge_slashes: true}",
            "{path_prefix: /a//b}",
            ".path_prefix: '/a//b' is not in normal form; write /a/b",
        ),
        ("{}", "{path_prefix: /a//b}", None),
        ("{}", "{path: /a%2Fb}", None),
        (
            "{encoded_slash: reject}",
            "{path: /a%2Fb}",
            ".path: '/a%2Fb' can never match: the path has an encoded slash",
        ),
        (
            "{}",
            "{path: /a%5Cb}",
            ".path: '/a%5Cb' can never match: the path has an encoded backslash",
        ),
        ("{encoded_backslash: keep}", "{path: /a%5Cb}", None),
        (
            "{semicolon: reject}",
            "{path_prefix: /a;b}",
            ".path_prefix: '/a;b' can never match: the path has a semicolon",
        ),
        ("{semicolon: perhaps}", "{path_prefix: /a;b}", None),
        ("{semicolon: reject}", "{path_prefix: 5}", None),
    ],
)
def test_a_route_whose_path_no_request_can_have_is_found(
    paths: str, match: str, said: str | None
) -> None:
    found = problems_of(f"paths: {paths}\nroutes:\n  - {{match: {match}, service: x}}")

    assert [said] == [one.partition("match")[2] for one in found] if said else found == []
