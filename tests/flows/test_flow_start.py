"""How the gateway starts, or says why it cannot."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.fakes.consul_agent import free_ports
from tests.fakes.gateway import routes_to
from tests.fakes.gateway_process import GatewayProcess, environment, run_to_its_end
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow

FIVE_MISTAKES = """\
version: 1
services:
  web:
    servers: [127.0.0.1:9001]
routes:
  - match: {path_prefx: /a}
    service: web
  - match: {path_prefix: /b}
    service: web
    timeouts: {connect: 2}
  - match: {path_prefix: c}
    service: web
  - match: {path_prefix: /d, methods: GET}
    service: web
"""


def test_check_names_every_mistake_with_its_line(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(FIVE_MISTAKES, encoding="utf-8")

    ended = run_to_its_end("check", "--config", routes)

    lines = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert [f"{routes}:{line}" for line in (4, 6, 10, 11, 13)] == [
        ":".join(line.split(":")[:2]) for line in lines
    ]
    for line, key in zip(
        lines, ("servers[0]", "path_prefx", "connect", "path_prefix", "methods"), strict=True
    ):
        assert key in line


def test_check_is_content_with_a_good_file(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(routes_to(9001, 9002), encoding="utf-8")

    ended = run_to_its_end("check", "-c", routes)

    assert ended.returncode == 0
    assert ended.stdout == f"{routes}: 1 routes to 1 services, no problems\n"


@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_routes_stop_the_start_with_all_that_is_wrong(tmp_path: Path, command: str) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(FIVE_MISTAKES, encoding="utf-8")

    ended = run_to_its_end(command, config=str(routes))

    assert ended.returncode == 2
    assert len([line for line in ended.stderr.splitlines() if str(routes) in line]) == 5


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    ended = run_to_its_end("run", "-c", tmp_path / "nowhere.yaml")

    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "nowhere.yaml" in ended.stderr


def test_settings_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(routes_to(9001), encoding="utf-8")

    ended = run_to_its_end(
        *("run", "-c", routes, "--bind", "8080"), drain_timeout="soon", max_connections="0"
    )

    assert ended.returncode == 2
    said = ended.stderr
    for name in ("--bind", "GATEWAY_DRAIN_TIMEOUT", "GATEWAY_MAX_CONNECTIONS"):
        assert name in said


def test_a_service_that_nobody_can_know_is_a_mistake(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        'version: 1\nroutes: [{match: {path_prefix: /}, service: "web"}]\n', encoding="utf-8"
    )

    ended = run_to_its_end("check", "-c", routes, registry="static")

    assert ended.returncode == 2
    assert "services.web" in ended.stderr


@pytest.mark.parametrize("option", ["--bind", "--admin"])
def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path, option: str) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(routes_to(9001), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = {"bind": "127.0.0.1:0", "admin": "127.0.0.1:0"}

        ended = run_to_its_end("run", "-c", routes, option, address, **addresses)

    assert ended.returncode == 1
    complaints = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert complaints == [f"gateway: cannot listen on {address}: Address already in use"]


async def test_the_admin_port_may_be_off(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        (port,) = free_ports(1)
        routes = tmp_path / "routes.yaml"
        routes.write_text(routes_to(web), encoding="utf-8")
        env = environment(config=str(routes), bind=f"127.0.0.1:{port}", admin="off")
        command = [sys.executable, "-m", "gateway", "run"]
        with subprocess.Popen(command, env=env, stdout=-3, stderr=subprocess.PIPE) as process:
            try:
                assert process.stderr is not None
                said = [process.stderr.readline() for _ in range(2)]
                async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                    answer = await client.get(f"http://127.0.0.1:{port}/")
            finally:
                process.kill()

    assert answer.status_code == 200
    assert [b'"listening"' in line for line in said] == [False, True]


async def test_any_asgi_server_can_run_it(tmp_path: Path) -> None:
    """`create_app` is complete: it reads its settings, and starts and stops by its lifespan."""
    async with ScriptedUpstream() as web:
        (port,) = free_ports(1)
        routes = tmp_path / "routes.yaml"
        routes.write_text(routes_to(web), encoding="utf-8")
        server = ("uvicorn", "--factory", "gateway.app:create_app", "--port", str(port))
        command = [sys.executable, "-m", *server]
        with (tmp_path / "log").open("wb") as log:
            env = environment(config=str(routes))
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            await wait_until(lambda: is_open(port), within_s=10)
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                answer = await client.get(f"http://127.0.0.1:{port}/")
            process.terminate()
            await wait_until(lambda: process.poll() is not None)
        finally:
            process.kill()
            process.wait()

    assert answer.status_code == 200
    assert process.returncode in {0, -15}  # uvicorn ends by the signal that it was sent
    assert "Application shutdown complete" in (tmp_path / "log").read_text(encoding="utf-8")


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def test_it_listens_on_ipv6_too(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("NO IPv6 LOOPBACK on this machine")
    async with ScriptedUpstream() as web:
        async with GatewayProcess(tmp_path, routes_to(web), bind="[::1]:0") as gateway:
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                answer = await client.get(f"http://[::1]:{gateway.port}/")

    assert answer.status_code == 200


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
