"""Mistakes that people make in routes.yaml and settings: each message names the place and the fix.

The list was made with the readers of values at hand, and a part of it is of known bad messages.
"""

from __future__ import annotations

import os

import httptools
import pytest

from gateway.config.errors import ConfigError
from gateway.config.kinds import _KNOWN_METHODS
from gateway.config.loading import parse_routes
from gateway.settings import SettingsError, load_settings

ROUTE = "version: 1\nroutes:\n  - match: {path_prefix: /a}\n    service: a\n"


def _route(match: str = "path_prefix: /a", more: str = "service: a") -> str:
    return f"version: 1\nroutes:\n  - match: {{{match}}}\n    {more}\n"


def _service(entry: str) -> str:
    return ROUTE + f"services:\n  a: {{{entry}}}\n"


# The text, the line of the mistake, and what the message must say of the place and of the fix.
IN_ROUTES = [
    (_route("path_prefix: /a, headers: {X-A: b}"), 3, "headers", "middleware"),
    (_route("path_prefix: /a, query: {v: 2}"), 3, "query", "middleware"),
    (_route('path_prefix: "/api/v[0-9]+"'), 3, "path_prefix", "a path is none"),
    (_route('path: "^/api$"'), 3, "path", "a path is none"),
    (_route('path: "/users/{id}"'), 3, "path", "a path is none"),
    (_route("path_prefix: /api/*"), 3, "path_prefix", "all that is below"),
    (_route("path_prefix: api"), 3, "path_prefix", "/api"),
    (_route("prefix: /a"), 3, "prefix", "path_prefix"),
    (_route("path_prefix: /a, host: a.example"), 3, "host", "hosts"),
    (_route("path_prefix: /a, method: GET"), 3, "method", "methods"),
    (_route("path_prefix: /a, methods: GET"), 3, "methods", "[GET]"),
    (_route("path_prefix: /a, methods: [GTE]"), 3, "methods[0]", "GET"),
    (_route("path_prefix: /a, methods: [FETCH]"), 3, "methods[0]", "GET"),
    (
        _route('path_prefix: /a, hosts: ["https://a.example:443/"]'),
        3,
        "hosts[0]",
        "write a.example",
    ),
    (_route('path_prefix: /a, hosts: ["a.example:8080/x"]'), 3, "hosts[0]", "write a.example"),
    (_route('path_prefix: /a, hosts: ["user:pw@a.example"]'), 3, "hosts[0]", "write a.example"),
    (_route("path_prefix: /a, hosts: a.example"), 3, "hosts", "[a.example]"),
    (_route(more="service: [a, b]"), 4, "service", "one name"),
    (_route(more="service: {name: a}"), 4, "service", "one name"),
    (_route(more='service: "http://10.0.0.1:80"'), 4, "service", "servers"),
    (_route(more='service: a\n    strip_prefix: "true"'), 5, "strip_prefix", "without quotes"),
    (_route(more="service: a\n    strip_prefix: yes"), 5, "strip_prefix", "write true"),
    (_route(more="service: a\n    strip_prefix: 1"), 5, "strip_prefix", "write true"),
    (_route(more="service: a\n    retry: {statuses: [5xx]}"), 5, "statuses[0]", "write 503"),
    (_route(more='service: a\n    retry: {statuses: ["503"]}'), 5, "statuses[0]", "without quotes"),
    (_route(more="service: a\n    retry: {statuses: 503}"), 5, "statuses", "[503]"),
    (_route(more='service: a\n    retry: {attempts: "3"}'), 5, "attempts", "without quotes"),
    (_route(more="service: a\n    retry: {attempts: 0}"), 5, "attempts", "1 or more"),
    (_route(more="service: a\n    retry: 3"), 5, "retry", "attempts"),
    (_route(more="service: a\n    timeouts: 5s"), 5, "timeouts", "response"),
    (_route(more="service: a\n    timeouts: {response: 30}"), 5, "response", "30s"),
    (_route(more="service: a\n    timeouts: {read: 3s}"), 5, "read", "response"),
    (_route(more="service: a\n    max_body: 10M"), 5, "max_body", "10MB"),
    (_route(more="servcie: a"), 4, "servcie", "service"),
    (_route(more="service: a\n    service: b"), 5, "service", "take one out"),
    (_service('servers: ["http://::1:9001"]'), 6, "servers[0]", "http://[::1]:9001"),
    (_service('servers: ["http://h:99999"]'), 6, "servers[0]", "65535"),
    (_service('servers: ["http://h:port"]'), 6, "servers[0]", "65535"),
    (_service('servers: ["http://[::1"]'), 6, "servers[0]", "http://[::1]:9001"),
    (_service('servers: ["10.0.0.1:80"]'), 6, "servers[0]", "http://10.0.0.1:80"),
    (_service('servers: "http://h:80"'), 6, "servers", "[http://h:80]"),
    (_service("balance: roundrobin"), 6, "balance", "round_robin"),
    ("version: 1\nroutes:\n  - match:{path_prefix: /a}\n    service: a\n", 3, "", "space after"),
    ("version: 1\nroutes:\n  - match: {path_prefix: /a}\n   service: a\n", 4, "", "same column"),
    (ROUTE + "---\n" + ROUTE, 5, "", "one document"),
    ("version: 1\nroutes:\n\t- service: a\n", 3, "", "spaces"),
    ("version: 1\nroutes: [\n  {service: a}\n", 4, "", "]"),
    ('version: 1\nroutes: "abc\n', 3, "", "quote"),
    ("version: 2\nroutes: []\n", 1, "version", "write 1"),
]

# The variable, its value, and what the message must say.
IN_SETTINGS = [
    ("GATEWAY_ACCESS_LOG", "json", "GATEWAY_LOG_FORMAT"),
    ("GATEWAY_ACCESS_LOG", "stdout", "write on"),
    ("GATEWAY_BIND", "8080", "write 127.0.0.1:8080"),
    ("GATEWAY_BIND", "http://0.0.0.0:80", "write 0.0.0.0:80"),
    ("GATEWAY_DRAIN_TIMEOUT", "30", "30s"),
    ("GATEWAY_LOG_LEVEL", "warn", "warning"),
    ("GATEWAY_MAX_CONNECTIONS", "ten", "write 1000"),
    ("GATEWAY_MAX_CONNECTIONS", "0", "1 or more"),
    ("GATEWAY_CONSUL_VERIFY", "maybe", "write true or false"),
    ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1/8", "write 10.0.0.0/8"),
    ("GATEWAY_CONSUL_ADDRESS", "consul", "HOST:8500"),
]


@pytest.mark.parametrize(("text", "line", "place", "fix"), IN_ROUTES)
def test_a_mistake_in_routes_yaml_is_told_with_its_place_and_its_fix(
    text: str, line: int, place: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_routes(text, env={})
    said = [str(problem) for problem in refused.value.problems]
    at_line = [one for one in said if one.startswith(f"routes.yaml:{line}:")]
    assert any(place in one and fix in one for one in at_line), said


@pytest.mark.parametrize(("variable", "value", "fix"), IN_SETTINGS)
def test_a_mistake_in_a_setting_is_told_with_its_name_and_its_fix(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fix: str
) -> None:
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "CONSUL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load_settings({})
    (said,) = refused.value.problems
    assert said.startswith(f"{variable}: ")
    assert fix in said


@pytest.mark.parametrize(
    "text",
    [
        _route(more="service: a\n    timeouts: {response: ${SECRET}}"),
        _route(more="service: ${SECRET}").replace("${SECRET}", '"x y ${SECRET}"'),
        _route(more='service: a\n    max_body: "${SECRET}"').replace(", ", " "),
        _service('servers: ["${SECRET}"]'),
        _service('servers: ["http://u:${SECRET}@h:1"]'),
        _service('servers: ["http://u:hunter2-hunter2@h:port"]'),
        _route('path_prefix: /a, hosts: ["u:hunter2-hunter2@a.example"]'),
    ],
)
def test_no_message_shows_what_a_variable_held_or_a_password(text: str) -> None:
    quoted = text.replace("{response: ${SECRET}}", '{response: "${SECRET}"}')
    with pytest.raises(ConfigError) as refused:
        parse_routes(quoted, env={"SECRET": "hunter2-hunter2"})
    assert "hunter2" not in str(refused.value).lower()


def test_two_dollar_signs_are_one_in_defaults_too() -> None:
    text = _route('path_prefix: "/${UNSET:-a$$b}"')
    assert parse_routes(text, env={}).routes[0].match.path == b"/a$b"


@pytest.mark.parametrize("method", sorted(set(_KNOWN_METHODS) - {"CONNECT"}))
def test_each_method_that_a_route_may_name_is_known_to_the_parser(method: str) -> None:
    httptools.HttpRequestParser(object()).feed_data(f"{method} / HTTP/1.1\r\n\r\n".encode())
