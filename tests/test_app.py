"""The composition root: a complete ASGI app under a server that knows nothing of the gateway."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.app import create_app, read_routes
from gateway.config.errors import ConfigError
from gateway.edge.asgi import Message
from gateway.settings import SettingsError, load_settings
from tests.fakes.asgi import scope_with
from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_file, routes_to
from tests.fakes.gateway_run import clean_environment
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TO_THE_REGISTRY = routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"})


class UvicornRun:
    """`uvicorn --factory gateway.app:create_app` as a program of its own, on a free port."""

    def __init__(self, child: subprocess.Popen[bytes], errors: Path) -> None:
        self.child = child
        self._errors = errors

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text(encoding="utf-8")

    async def port(self) -> int:
        """Wait until it listens, and tell where."""
        running = re.compile(r"running on http://127\.0\.0\.1:(\d+)")
        await wait_until(lambda: running.search(self.said) or self.child.poll() is not None)
        found = running.search(self.said)
        assert found is not None, self.said
        return int(found[1])

    async def ended(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        await wait_until(lambda: self.child.poll() is not None)
        return self.child.returncode


@asynccontextmanager
async def under_uvicorn(routes: str, folder: Path, *options: str) -> AsyncIterator[UvicornRun]:
    """Run it with these routes and the static registry; kill it in the end if it is still there."""
    config, errors = folder / "routes.yaml", folder / "stderr"
    config.write_text(routes, encoding="utf-8")
    with _started(config, errors, *options) as child:
        try:
            yield UvicornRun(child, errors)
        finally:
            child.kill()


def _started(config: Path, errors: Path, *options: str) -> subprocess.Popen[bytes]:
    factory = ["--factory", "gateway.app:create_app", "--host", "127.0.0.1", "--port", "0"]
    with errors.open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *factory, *options],
            cwd=ROOT,
            env=clean_environment(
                GATEWAY_CONFIG=str(config),
                GATEWAY_REGISTRY="static",
                GATEWAY_STATE_DIR="off",
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


@pytest.mark.slow
async def test_any_asgi_server_can_run_it(tmp_path: Path) -> None:
    """Under uvicorn it starts, proxies, refuses in its own words, and ends with the server."""
    async with ScriptedUpstream() as web:
        routes = routes_to(web, match={"path_prefix": "/api"})
        async with under_uvicorn(routes, tmp_path) as uvicorn:
            async with RawClient(await uvicorn.port()) as client:
                await client.send(ask("/api/users", "POST", body=b"hello"))
                answer = await client.read_response()
                await client.send(ask("/nowhere"))
                refusal = await client.read_response()
            uvicorn.child.send_signal(signal.SIGTERM)
            code = await uvicorn.ended()
            await web.wait_until(lambda: not any(one.is_open() for one in web.connections))

        assert (answer.status, answer.body) == (200, b"ok")
        assert [bytes(request.body) for request in web.requests] == [b"hello"]
        assert (refusal.status, refusal.values(b"x-gateway-reason")) == (404, [b"no_route"])
        assert "Application shutdown complete" in uvicorn.said
        assert "Traceback" not in uvicorn.said
        assert code in {0, -signal.SIGTERM}  # uvicorn raises the signal again when it is done


@pytest.mark.slow
async def test_the_command_of_the_readme_believes_nobody_and_adds_nothing(tmp_path: Path) -> None:
    """Without its options uvicorn believes whoever is on this machine, and writes a second Date."""
    written = re.search(r"`uvicorn --factory gateway\.app:create_app( [^`]*)`", README)
    assert written is not None
    async with ScriptedUpstream() as web:
        date = b"Mon, 01 Jan 2024 00:00:00 GMT"
        web.on_request(respond(headers=[(b"Date", date), (b"Server", b"web")]))
        async with under_uvicorn(routes_to(web), tmp_path, *written[1].split()) as uvicorn:
            async with RawClient(await uvicorn.port()) as client:
                forged = (("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"))
                await client.send(ask("/", "GET", *forged))
                answer = await client.read_response()

        (request,) = web.requests
        assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert request.values(b"x-forwarded-proto") == [b"http"]
        assert answer.values(b"date") == [date]
        assert answer.values(b"server") == [b"web"]


@pytest.mark.slow
async def test_without_lifespan_the_server_is_told_what_is_missing(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as web,
        under_uvicorn(routes_to(web), tmp_path, "--lifespan", "off") as uvicorn,
    ):
        async with RawClient(await uvicorn.port()) as client:
            await client.send(ask())
            answer = await client.read_response()

        assert answer.status == 500
        assert "the gateway is not running: the ASGI server must support lifespan" in uvicorn.said
        assert web.requests == []


@pytest.mark.slow
async def test_a_mistake_in_the_configuration_keeps_the_server_from_starting(
    tmp_path: Path,
) -> None:
    async with under_uvicorn("version: 1\nroutes: nowhere\n", tmp_path) as uvicorn:
        code = await uvicorn.ended()

    assert code == 1
    assert f"{tmp_path / 'routes.yaml'}:2:9: routes:" in uvicorn.said


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Give a place for routes.yaml, with one route to the registry."""
    file = tmp_path / "routes.yaml"
    file.write_text(TO_THE_REGISTRY, encoding="utf-8")
    return file


async def test_a_websocket_is_closed_before_it_is_accepted(config: Path) -> None:
    gateway = create_app(load_settings({"config": config, "access_log": "off"}))
    scope = scope_with(type="websocket", scheme="ws", subprotocols=[])
    received: list[Message] = [{"type": "websocket.connect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return received.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway(scope, receive, send)

    assert received == []
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_the_static_registry_must_know_every_service(config: Path) -> None:
    settings = load_settings({"config": config, "registry": "static"})

    with pytest.raises(ConfigError) as raised:
        read_routes(settings)

    assert [problem.key for problem in raised.value.problems] == ["services.web"]


def test_a_log_that_cannot_be_written_is_named(config: Path, tmp_path: Path) -> None:
    settings = load_settings({"config": config, "access_log": tmp_path / "nowhere" / "log"})

    with pytest.raises(SettingsError, match=r"^GATEWAY_ACCESS_LOG: .*No such file"):
        create_app(settings)


async def test_a_mistake_in_one_task_ends_that_task_alone(config: Path) -> None:
    gateway = create_app(
        load_settings(
            {"config": config, "access_log": "off", "state_dir": "off", "registry": "consul"}
            | {"consul_address": "http://127.0.0.1:1"}
        )
    )
    finished = asyncio.Event()

    async def broken() -> None:
        raise KeyError("mistake")

    async def sound() -> None:
        finished.set()

    with capture_logs() as events:
        async with gateway.running():
            await asyncio.wait([gateway._spawn(broken(), name="broken")])
            await asyncio.wait([gateway._spawn(sound(), name="sound")])

    assert [event["event"] for event in events].count("task_failed") == 1
    assert finished.is_set()


async def test_a_request_before_the_start_says_what_is_missing(config: Path) -> None:
    gateway = create_app(load_settings({"config": config, "access_log": "off"}))

    async def work() -> None:
        raise AssertionError("never runs")

    with pytest.raises(RuntimeError, match="must support lifespan"):
        gateway._spawn(work(), name="early")
