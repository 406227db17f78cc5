"""The entry `health_check`: what it takes, and what is said of what it does not take."""

from __future__ import annotations

import pytest

from gateway.config import parse_routes
from gateway.config.errors import ConfigError
from gateway.core.config import ServiceConfig
from gateway.core.policy import HealthCheckPolicy, StatusRange

ROUTES = "version: 1\nroutes: [{match: {path: /}, service: web}]\nservices:\n  web:\n"


def service(*lines: str) -> ServiceConfig:
    text = ROUTES + "".join(f"    {line}\n" for line in lines)
    return parse_routes(text, env={}).services["web"]


def refusal(*lines: str) -> str:
    with pytest.raises(ConfigError) as refused:
        service(*lines)
    (problem,) = refused.value.problems
    return f"{problem.key}: {problem.message}"


def test_without_the_key_nothing_is_checked() -> None:
    assert service("retry: {attempts: 1}").health_check is None


def test_what_is_left_out_has_the_defaults_of_the_core() -> None:
    assert service("health_check: {path: /health}").health_check == HealthCheckPolicy(
        path="/health"
    )
    assert service("health_check: {type: tcp}").health_check == HealthCheckPolicy(type="tcp")


def test_all_that_can_be_said_is_taken_over() -> None:
    check = service(
        "health_check:",
        "  type: http",
        "  path: /health?deep=1",
        "  interval: 10s",
        "  timeout: 500ms",
        "  healthy_after: 1",
        "  unhealthy_after: 5",
        "  expect: [200-299, 304, '401']",
        "  host: shop.example:8080",
        "  headers: {X-Token: a secret, accept: '*/*'}",
    ).health_check

    assert check == HealthCheckPolicy(
        type="http",
        path="/health?deep=1",
        interval_s=10.0,
        timeout_s=0.5,
        healthy_after=1,
        unhealthy_after=5,
        expect=(StatusRange(200, 299), StatusRange(304, 304), StatusRange(401, 401)),
        host="shop.example:8080",
        headers=(("X-Token", "a secret"), ("accept", "*/*")),
    )
    assert "secret" not in repr(check)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{}", ": needs a path; write path: /health, or type: tcp to only connect"),
        ("{interval: 5s}", ": needs a path; write path: /health, or type: tcp to only connect"),
        ("{type: udp}", ".type: 'udp' is not known; write http or tcp"),
        (
            "{type: tcp, path: /h}",
            ": type tcp only connects: leave path out, or write type: http",
        ),
        (
            "{type: tcp, expect: [200]}",
            ": type tcp only connects: leave expect out, or write type: http",
        ),
        (
            "{path: health}",
            ".path: 'health' is not a path; write it with a slash in front: /health",
        ),
        (
            "{path: /a b}",
            ".path: '/a b' is not a path; write it with a slash in front: /health",
        ),
        (
            "{path: '/a#b'}",
            ".path: '/a#b' is not a path; write it with a slash in front: /health",
        ),
        ("{path: /h, unhealthy_after: 0}", ".unhealthy_after: 0 is out of range; 1 or more"),
        (
            "{path: /h, interval: 5}",
            ".interval: 5 is not a duration; write 5s (or 5ms)",
        ),
        (
            "{path: /h, expect: [20]}",
            ".expect[0]: 20 is not a status; write 200 or 200-399",
        ),
        (
            "{path: /h, expect: [399-200]}",
            ".expect[0]: '399-200' goes backwards; write 200-399",
        ),
        ("{path: /h, expect: []}", ".expect: is empty; leave it out instead"),
        (
            "{path: /h, host: 'http://a'}",
            ".host: 'http://a' is not a host; write shop.example or shop.example:8080",
        ),
        (
            "{path: /h, headers: {Host: a}}",
            ".headers.Host: Host is written by the gateway itself; there is a key `host`",
        ),
        (
            "{path: /h, headers: {Connection: close}}",
            ".headers.Connection: Connection is written by the gateway itself",
        ),
        (
            "{path: /h, headers: {'X Y': a}}",
            ".headers.X Y: 'X Y' is not the name of a header; write X-Token",
        ),
        (
            '{path: /h, headers: {X-Y: "a\\nb"}}',
            ".headers.X-Y: is not the value of a header; write printable ASCII in quotes",
        ),
        ("{path: /h, intervall: 5s}", ".intervall: unknown key; did you mean 'interval'?"),
    ],
)
def test_a_mistake_is_named_where_it_stands(entry: str, words: str) -> None:
    assert f"services.web.health_check{words}" == refusal(f"health_check: {entry}")


# --- What is chosen in the registry --------------------------------------------------------------


def test_tags_and_datacenters_are_taken_over() -> None:
    chosen = service("tags: [v2, 'blue green']", "datacenters: [dc3, dc2]")

    assert (chosen.tags, chosen.datacenters) == (frozenset({"v2", "blue green"}), ("dc3", "dc2"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["tags: [2]"], "tags[0]: 2 is not a tag; write it in quotes"),
        (["tags: []"], "tags: is empty; leave it out instead"),
        (
            ["datacenters: [eu/west]"],
            "datacenters[0]: 'eu/west' is not a datacenter; use letters, digits, '_' and '-'",
        ),
        (["datacenters: [dc2, dc2]"], "datacenters: 'dc2' stands twice"),
        (
            ["servers: ['http://a:1']", "tags: [v2]"],
            "tags: chooses among instances of the registry, and servers is there instead",
        ),
        (
            ["servers: ['http://a:1']", "datacenters: [dc2]"],
            "datacenters: chooses among instances of the registry, and servers is there instead",
        ),
    ],
)
def test_a_choice_that_cannot_be_made_is_a_mistake(lines: list[str], words: str) -> None:
    assert f"services.web.{words}" == refusal(*lines)
