"""From a file to a RoutingConfig, or to everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ConfigError, load_routes, parse_routes

EXAMPLE = Path(__file__).parents[2] / "routes.yaml"

FIVE_MISTAKES = """\
version: 1
routes:
  - match: {path_prefix: /api}
    service: users
    strip_prefx: true
  - match: {path_prefix: /api/}
    service: orders
    timeouts: {connect: 2 sec}
  - match: {path: /a, hosts: [a.test:80]}
    service: ${SERVICE}
"""


def test_five_different_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_routes(FIVE_MISTAKES, file="routes.yaml", env={})

    assert str(refused.value).splitlines() == [
        "routes.yaml:5:5: routes[0].strip_prefx: unknown key; did you mean 'strip_prefix'?",
        (
            "routes.yaml:6:5: routes[1].match: /api is taken by routes[0] (line 3) too, "
            "so this one can never match"
        ),
        (
            "routes.yaml:8:25: routes[1].timeouts.connect: '2 sec' is not a duration; "
            "write 250ms, 5s or 1m"
        ),
        (
            "routes.yaml:9:31: routes[2].match.hosts[0]: 'a.test:80' is not a host name; "
            "ports are not matched: write a.test"
        ),
        (
            "routes.yaml:10:14: routes[2].service: ${SERVICE} is not set; "
            "set it or write ${SERVICE:-default}"
        ),
    ]


def test_the_example_at_the_root_loads_with_nothing_set_and_without_warnings() -> None:
    config = load_routes(EXAMPLE, {})

    assert config.routes
    assert config.warnings == ()


def test_the_example_of_the_design_loads_as_far_as_it_is_built() -> None:
    text = """
version: 1
defaults:                         # any policy below; a service or route may override
  timeouts: {connect: 2s, response: 15s, idle: 5m}
services:                         # optional: only what differs from the default
  legacy: {servers: [{url: "http://127.0.0.1:9001", weight: 2}, {url: "http://127.0.0.1:9002"}]}
routes:
  - match: {path_prefix: /api/users}
    service: user-service
    strip_prefix: true
  - id: orders-write
    match: {path_prefix: /api/orders, methods: [POST, PUT], hosts: [api.example.com]}
    service: legacy
"""

    assert [route.id for route in parse_routes(text, env={}).routes] == [
        "api-users",
        "orders-write",
    ]


def test_a_file_is_read_with_its_variables(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1\nroutes: [{match: {path: /}, service: '${S}'}]", encoding="utf-8")

    assert load_routes(path, {"S": "users"}).routes[0].service == "users"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\nroutes: [{match: {path: /}, service: x}]\n")

    assert load_routes(path, {}).routes[0].service == "x"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"version: 1\n# \xc3\xa9 \xff\n", "{path}:2:5: is not UTF-8"),
        (b"a: [", "{path}:1:5: is not valid YAML: "),
        (b"", "{path}:1:1: is empty; it needs at least version and routes"),
    ],
)
def test_a_file_that_cannot_be_read_as_text_is_told_with_the_place(
    tmp_path: Path, raw: bytes, expected: str
) -> None:
    path = tmp_path / "routes.yaml"
    path.write_bytes(raw)

    with pytest.raises(ConfigError) as refused:
        load_routes(path, {})

    assert str(refused.value).startswith(expected.format(path=path))


def test_a_file_that_is_not_there_is_told_without_a_place(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"

    with pytest.raises(ConfigError) as refused:
        load_routes(path, {})

    assert str(refused.value) == f"{path}: cannot be read: no such file or directory"


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load_routes(tmp_path, {})


@pytest.mark.slow
def test_a_thousand_routes_load_in_less_than_the_patience_of_a_reload() -> None:
    routes = "".join(
        f"  - match: {{path_prefix: /api/service-{number}, methods: [GET, POST]}}\n"
        f"    service: service-{number}\n    strip_prefix: true\n"
        for number in range(1_000)
    )

    assert len(parse_routes(f"version: 1\nroutes:\n{routes}", env={}).routes) == 1_000


LINES = [
    "version: 1",
    "routes:",
    "  - match: {path: /a}",
    "  - match: {path: /a}",
    "  - match: [x]",
    "    service: x",
    "    service: 5",
    "    id: a",
    "    retry: {attempts: many, buffer: 1, wings: ~}",
    "services: {x: {servers: ['http://h', {url: 5}, 5, ~]}, 'a b': 5}",
    "defaults: {circuit_breaker: {open_for: 10m}, timeouts: off}",
    "defaults: &a {<<: *a}",
    "x: ${UNSET}",
    "- 5",
    "~",
]


@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_any_file_is_a_config_or_problems_that_all_have_a_place(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        parse_routes(text, env={})
    except ConfigError as refused:
        problems = refused.problems
    else:
        return

    assert problems
    assert list(problems) == sorted(problems)
    assert all(1 <= problem.line <= len(lines) + 1 for problem in problems)
