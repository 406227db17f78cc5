"""WebSocket scopes: an app of this process gets them, nobody else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from gateway.app import create_app
from gateway.edge.asgi import Message, Receive, Scope, Send
from gateway.settings import load_settings
from tests.fakes.apps import puppet
from tests.fakes.asgi import scope_with
from tests.fakes.gateway import routes_file

HANDSHAKE = [
    (b"host", b"shop.example"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
ROUTES = routes_file(
    {"web": {"servers": ["http://127.0.0.1:9"]}},
    {
        "match": {"path_prefix": "/app"},
        "app": "tests.fakes.apps:puppet",
        "middleware": ["tests.fakes.apps:Adds"],
        "strip_prefix": True,
        "upgrade": ["websocket"],
    },
    {"match": {"path_prefix": "/silent"}, "app": "tests.fakes.apps:puppet"},
    {
        "match": {"path_prefix": "/guarded"},
        "app": "tests.fakes.apps:puppet",
        "middleware": [{"use": "examples.apps.guard:ApiKey", "options": {"keys": ["k"]}}],
        "upgrade": ["websocket"],
    },
    {"match": {"path_prefix": "/web"}, "service": "web"},
    {
        "match": {"path_prefix": "/around"},
        "service": "web",
        "middleware": ["tests.fakes.apps:Adds"],
    },
)


@pytest.fixture(autouse=True)
def _fresh_puppet() -> Iterator[None]:
    puppet.reset()
    yield
    puppet.reset()


async def call(tmp_path: Path, path: str, **changes: Any) -> tuple[list[Message], dict[str, Any]]:
    """Let a client open a WebSocket; give what was sent, and the line that it left."""
    (tmp_path / "routes.yaml").write_text(ROUTES, encoding="utf-8")
    log = tmp_path / "access.log"
    options = {"config": tmp_path / "routes.yaml", "state_dir": "off", "access_log": log}
    gateway = create_app(load_settings({"registry": "static", **options}))
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        **scope_with(type="websocket", scheme="wss", path=unquote(path), raw_path=path.encode()),
        "headers": HANDSHAKE,
        "subprotocols": ["chat"],
        **changes,
    }
    scope = {name: value for name, value in scope.items() if value is not None}
    del scope["method"]
    async with gateway.running():
        await gateway(scope, receive, send)
    (line,) = log.read_text(encoding="utf-8").splitlines()
    return sent, json.loads(line)


async def greets(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, say hello and leave."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})


async def test_the_app_of_a_route_gets_it(tmp_path: Path) -> None:
    puppet.plays(greets)

    sent, line = await call(tmp_path, "/app/../app/x%20y")

    assert [one["type"] for one in sent] == ["websocket.accept", "websocket.send"]
    (scope,) = puppet.scopes
    assert (scope["type"], scope["scheme"], scope["subprotocols"]) == ("websocket", "wss", ["chat"])
    assert (scope["path"], scope["root_path"]) == ("/app/x y", "/app")
    assert scope["state"] == {"started": "by its lifespan"}
    assert (b"sec-websocket-key", HANDSHAKE[3][1]) in scope["headers"]
    assert (line["status"], line["app"], line["path"]) == (
        101,
        "tests.fakes.apps:puppet",
        "/app/x%20y",
    )


async def test_a_route_that_does_not_ask_for_it_gets_none(tmp_path: Path) -> None:
    """Middleware that guards requests may let pass what it does not know."""
    puppet.plays(greets)

    sent, line = await call(tmp_path, "/silent")

    assert [one["type"] for one in sent] == ["websocket.close"]
    assert (line["failure"], line["detail"]) == (
        "not_implemented",
        "this route takes no WebSocket; see upgrade",
    )
    assert puppet.scopes == []


@pytest.mark.parametrize(("key", "opens"), [(b"k", True), (b"x", False), (b"", False)])
async def test_the_guard_of_the_examples_looks_at_it(
    tmp_path: Path, key: bytes, *, opens: bool
) -> None:
    puppet.plays(greets)

    sent, _ = await call(tmp_path, "/guarded", headers=[*HANDSHAKE, (b"x-api-key", key)])

    assert sent[0]["type"] == ("websocket.accept" if opens else "websocket.close")
    assert len(puppet.scopes) == opens


async def test_a_scope_may_come_without_a_version(tmp_path: Path) -> None:
    """It is optional (ASGI, WebSocket connection scope), and test clients leave it out."""
    puppet.plays(greets)

    sent, line = await call(tmp_path, "/app/x", http_version=None)

    assert sent[0]["type"] == "websocket.accept"
    assert line["status"] == 101


async def test_an_app_that_raises_is_the_servers_affair_and_named_in_the_line(
    tmp_path: Path,
) -> None:
    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    puppet.plays(raises)
    with pytest.raises(ExceptionGroup):
        await call(tmp_path, "/app")

    line = json.loads((tmp_path / "access.log").read_text(encoding="utf-8"))
    assert (line["status"], line["failure"]) == (403, "app_failed")


@pytest.mark.parametrize(
    ("path", "changes", "failure"),
    [
        ("/web", {}, "not_implemented"),
        ("/around", {}, "not_implemented"),
        ("/nowhere", {}, "no_route"),
        ("/app/..%2fweb", {}, "bad_request"),
        ("/app", {"headers": []}, "bad_request"),
        ("/app", {"headers": [*HANDSHAKE, (b"x-a", b"1\r\nx-b: 2")]}, "bad_request"),
    ],
)
async def test_whatever_else_is_closed_before_it_is_accepted(
    tmp_path: Path, path: str, changes: dict[str, Any], failure: str
) -> None:
    sent, line = await call(tmp_path, path, **changes)

    assert sent == [{"type": "websocket.close", "code": 1000}]
    assert (line["status"], line["failure"]) == (403, failure)
    assert puppet.scopes == []
