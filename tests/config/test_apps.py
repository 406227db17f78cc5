"""The apps and middleware that routes.yaml names, and what is wrong with them, at their places."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.config import ConfigError, load_routes, parse_routes
from gateway.core.routing import Middleware, Route

HEAD = "version: 1\nroutes:\n  - match: {path: /a}\n"
FAKES = "tests.fakes.apps"


def route_of(*lines: str) -> Route:
    """Read the one route that has these lines."""
    return parse_routes(HEAD + "".join(f"    {line}\n" for line in lines), env={}).routes[0]


def problems_of(*lines: str) -> list[str]:
    """List what is wrong with the one route that has these lines."""
    with pytest.raises(ConfigError) as refused:
        route_of(*lines)
    return [str(one).removeprefix("routes.yaml:") for one in refused.value.problems]


def test_a_route_ends_in_an_app_and_needs_no_service() -> None:
    config = parse_routes(f"{HEAD}    app: {FAKES}:echo\n", env={})

    (route,) = config.routes
    assert (route.app, route.service, route.upgrade) == (f"{FAKES}:echo", "", frozenset())
    assert config.services == {}
    assert config.warnings == ()


def test_an_app_asks_for_websockets_by_name() -> None:
    route = route_of(f"app: {FAKES}:echo", f"middleware: ['{FAKES}:Adds']", "upgrade: [websocket]")

    assert route.upgrade == {b"websocket"}
    assert problems_of(f"app: {FAKES}:echo", "upgrade: [websocket, other]") == [
        "3:5: routes[0]: upgrade: apps know WebSocket alone; write [websocket]"
    ]


def test_middleware_has_a_short_form_and_options_of_any_kind() -> None:
    route = route_of(
        "service: x",
        f"middleware: ['{FAKES}:Adds', {{use: '{FAKES}:Guard', options: {{realm: [1]}}}}]",
    )

    assert route.middleware == (
        Middleware(use=f"{FAKES}:Adds"),
        Middleware(use=f"{FAKES}:Guard", options={"realm": [1]}),
    )
    assert route.upgrade == frozenset()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["timeouts: {}"], "3:5: routes[0]: needs service, or app for an ASGI app in this process"),
        (
            ["service: x", f"app: {FAKES}:echo"],
            "3:5: routes[0]: takes service or app, not both",
        ),
        (
            [f"app: {FAKES}:echo", "retry: {attempts: 1}"],
            "3:5: routes[0]: retry is for routes to a service, and this one ends in an app",
        ),
        (
            [f"app: {FAKES}:echo", "max_concurrency: 5"],
            (
                "3:5: routes[0]: max_concurrency is for routes to a service, and this one ends in "
                "an app"
            ),
        ),
        (
            ["service: x", f"middleware: ['{FAKES}:Adds']", "upgrade: [websocket]"],
            "3:5: routes[0]: upgrade: nothing but HTTP passes through middleware; leave it out",
        ),
        (
            ["app: echo"],
            "4:10: routes[0].app: 'echo' is not a name to import; write package.module:attribute",
        ),
        (
            ["app: nowhere:app"],
            (
                "4:10: routes[0].app: there is no module 'nowhere'; install it, or put it beside "
                "the file with the routes"
            ),
        ),
        (["app: tests.fakes.apps:no"], "4:10: routes[0].app: tests.fakes.apps has no 'no'"),
        (
            ["service: x", f"middleware: ['{FAKES}:no']"],
            "5:18: routes[0].middleware[0]: tests.fakes.apps has no 'no'",
        ),
        (
            ["service: x", "middleware:", f"  - use: {FAKES}:Guard"],
            (
                "6:14: routes[0].middleware[0].use: tests.fakes.apps:Guard cannot be made of an "
                "app: missing a required argument: 'realm'"
            ),
        ),
        (
            ["service: x", "middleware:", f"  - {{use: '{FAKES}:Adds', option: 1}}"],
            "6:40: routes[0].middleware[0].option: unknown key; did you mean 'options'?",
        ),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(lines: list[str], expected: str) -> None:
    assert problems_of(*lines) == [expected]


def test_what_could_not_be_read_is_not_imported() -> None:
    assert problems_of("app: ${APP}") == [
        "4:10: routes[0].app: ${APP} is not set; set it or write ${APP:-default}"
    ]


def test_an_app_may_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "lies_beside.py").write_text("async def app(*_): ...\n", encoding="utf-8")
    (tmp_path / "routes.yaml").write_text(f"{HEAD}    app: lies_beside:app\n", encoding="utf-8")

    assert load_routes(tmp_path / "routes.yaml", {}).routes[0].app == "lies_beside:app"
