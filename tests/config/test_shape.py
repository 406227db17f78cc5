"""A document against the models: the words and the place of each kind of mistake."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config.document import read_document
from gateway.config.shape import check_shape, message_of


def problems_of(text: str) -> list[str]:
    document = read_document(text, file="f", env={})
    _, problems = check_shape(document)
    return [str(problem).removeprefix("f:") for problem in sorted(problems)]


def problems_of_route(*lines: str) -> list[str]:
    """Check a file with one route, whose lines stand from line 3 and column 5 on."""
    return problems_of("version: 1\nroutes:\n  - " + "\n    ".join(lines) + "\n")


RIGHT = ("match: {path: /}", "service: x")


def test_what_is_right_gives_the_whole_file() -> None:
    document = read_document("version: 1\nroutes: []", file="f", env={})

    file, problems = check_shape(document)

    assert file is not None
    assert problems == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("strip_prefx: true", "unknown key; did you mean 'strip_prefix'?"),
        ("strip-prefix: true", "unknown key; did you mean 'strip_prefix'?"),
        ("Timeouts: {}", "unknown key; did you mean 'timeouts'?"),
        ("hosts: [a.test]", "unknown key; it belongs in routes[].match"),
        ("methods: [GET]", "unknown key; it belongs in routes[].match or retry"),
        (
            "wings: 2",
            (
                "unknown key; known here: id, match, service, app, middleware, strip_prefix, "
                "add_prefix, preserve_host, max_body, upgrade, max_concurrency, max_queue, "
                "max_queue_wait, max_tunnels, priority_class, deadline_header, "
                "remove_request_fields, timeouts, retry"
            ),
        ),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(line: str, expected: str) -> None:
    key = line.partition(":")[0]

    assert problems_of_route(*RIGHT, line) == [f"5:5: routes[0].{key}: {expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "version: 1\nroutes: []\nservices:\n  a:\n    server: []\n",
            "5:5: services.a.server: unknown key; did you mean 'servers'?",
        ),
        (
            "version: 1\nroutes: []\nservices: {a: {servers: [{url: 'http://h', wieght: 1}]}}",
            "3:44: services.a.servers[0].wieght: unknown key; did you mean 'weight'?",
        ),
        (
            "version: 1\nroutes: []\ndefaults: {retry: {atempts: 1}}",
            "3:20: defaults.retry.atempts: unknown key; did you mean 'attempts'?",
        ),
        ("version: 1\nroute: []\nroutes: []", "2:1: route: unknown key; did you mean 'routes'?"),
    ],
)
def test_the_known_keys_are_those_of_the_place(text: str, expected: str) -> None:
    assert problems_of(text) == [expected]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "strip_prefix: yes",
            "5:19: routes[0].strip_prefix: 'yes' is not a switch; write true or false",
        ),
        ("strip_prefix: 1", "5:19: routes[0].strip_prefix: 1 is not a switch; write true or false"),
        (
            "retry: 3",
            (
                "5:12: routes[0].retry: 3 is not a mapping of keys to values; "
                "write retry: {attempts: 3}"
            ),
        ),
        (
            "retry: [3]",
            (
                "5:12: routes[0].retry: a list is not a mapping of keys to values; "
                "write retry: {attempts: 3}"
            ),
        ),
        (
            "retry: {attempts: '3'}",
            "5:23: routes[0].retry.attempts: '3' is a text; write 3 without quotes",
        ),
        (
            "retry: {attempts: true}",
            "5:23: routes[0].retry.attempts: true is not a whole number; write 3",
        ),
        (
            "retry: {attempts: 1.5}",
            "5:23: routes[0].retry.attempts: 1.5 is not a whole number; write 3",
        ),
        ("retry: {attempts: 0}", "5:23: routes[0].retry.attempts: 0 is out of range; 1 or more"),
        (
            "retry: {statuses: [502, 600]}",
            "5:29: routes[0].retry.statuses[1]: 600 is out of range; 599 or less",
        ),
        (
            "retry: {statuses: 502}",
            "5:23: routes[0].retry.statuses: 502 is not a list; write [502]",
        ),
        (
            "timeouts: {connect: 2 sec}",
            "5:25: routes[0].timeouts.connect: '2 sec' is not a duration; write 250ms, 5s or 1m",
        ),
        ("service: [x]", "5:14: routes[0].service: a list is not a name; write one name"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_with_what_is_expected(line: str, expected: str) -> None:
    others = [known for known in RIGHT if not line.startswith("service") or "service" not in known]
    padding = ["id: a"] * (2 - len(others))

    assert problems_of_route(*padding, *others, line) == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", "0 is out of range; more than 0"),
        ("1.5", "1.5 is out of range; 1 or less"),
        ("half", "'half' is not a number; write 0.5"),
    ],
)
def test_a_ratio_is_more_than_nothing_and_at_most_one(value: str, expected: str) -> None:
    text = f"version: 1\nroutes: []\ndefaults: {{circuit_breaker: {{failure_ratio: {value}}}}}"

    assert problems_of(text) == [f"3:45: defaults.circuit_breaker.failure_ratio: {expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("routes: []", ["1:1: version: is missing"]),
        ("version: 1", ["1:1: routes: is missing"]),
        ("version: 2\nroutes: []", ["1:10: version: 2 is not known; write 1"]),
        ("version: '1'\nroutes: []", ["1:10: version: '1' is not known; write 1"]),
        ("- a", ["1:1: a list is not a mapping of keys to values; write {key: value}"]),
        ("text", ["1:1: 'text' is not a mapping of keys to values; write {key: value}"]),
        ("version: 1\nroutes: {}", ["2:1: routes: a mapping is not a list; put it in [ ]"]),
        (
            "version: 1\nroutes: []\nservices: [a]",
            ["3:11: services: a list is not a mapping of keys to values; write {key: value}"],
        ),
    ],
)
def test_the_outermost_keys(text: str, expected: list[str]) -> None:
    assert expected == problems_of(text)


def test_what_is_missing_is_told_where_it_should_be() -> None:
    assert problems_of_route("id: a") == ["3:5: routes[0].match: is missing"]
    assert problems_of_route("match: {path: /}") == [
        "3:5: routes[0]: needs service, or app for an ASGI app in this process"
    ]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ("{}", "3:5: routes[0].match: needs path_prefix or path; path_prefix: / takes every path"),
        (
            "{path: /a, path_prefix: /a}",
            "3:5: routes[0].match: takes path_prefix or path, not both",
        ),
        ("{path: /, hosts: []}", "3:29: routes[0].match.hosts: is empty; leave it out instead"),
        ("{path: /, methods: []}", "3:31: routes[0].match.methods: is empty; leave it out instead"),
        ("{path: /, methods: [GET, get]}", "3:31: routes[0].match.methods: 'GET' stands twice"),
        (
            "{path: /, hosts: [a.test, A.test.]}",
            "3:29: routes[0].match.hosts: 'a.test' stands twice",
        ),
        (
            "{path: /, hosts: a.test}",
            "3:29: routes[0].match.hosts: 'a.test' is not a list; write [a.test]",
        ),
    ],
)
def test_a_match_names_one_path_and_real_lists(match: str, expected: str) -> None:
    assert problems_of_route(f"match: {match}", "service: x") == [expected]


def test_a_wrong_name_of_a_service_is_told_at_its_key() -> None:
    assert problems_of("version: 1\nroutes: []\nservices:\n  a/b: {}") == [
        (
            "4:3: services.a/b: 'a/b' is not a name; use letters, digits, '.', '_' and '-', "
            "128 at most, a letter or digit first and no '..'"
        )
    ]


def test_what_the_document_complains_of_is_not_said_again() -> None:
    text = (
        "version: 1\nroutes:\n"
        "  - match: {path_prefix: '${UNSET}', hosts: [~]}\n"
        "    service:\n    strip_prefx: ${UNSET}\n"
    )

    assert problems_of(text) == [
        "5:5: routes[0].strip_prefx: unknown key; did you mean 'strip_prefix'?"
    ]


def test_a_kind_of_error_that_is_not_known_is_told_in_the_words_of_pydantic() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(bytes).validate_python(5)

    assert message_of(refused.value.errors()[0]) == "Input should be a valid bytes"
