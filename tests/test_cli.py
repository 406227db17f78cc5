"""The command line: what it says, and its exit codes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway import __version__
from gateway.cli import _cli
from tests.fakes.gateway import routes_to
from tests.fakes.gateway_run import clean_environment
from tests.fakes.waiting import PATIENCE_S

MISTAKEN = """\
version: 1
services:
  web:
    servers: [ftp://127.0.0.1:8001]
routes:
  - match: {path_prefix: /api}
    service: web
    strip_prefx: true
  - match: {path_prefix: api/v2}
    service: web
    timeouts: {connect: 2 sec}
  - match: {path_prefix: /api}
    service: web
"""


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what configures a gateway on the machine that runs the tests."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)


def said_by(*arguments: str) -> Result:
    """Run a command that ends by itself and changes nothing in this process."""
    return CliRunner().invoke(_cli, arguments, prog_name="gateway")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a program of its own that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    """Write a file that is all right with the static registry."""
    file = tmp_path / "routes.yaml"
    file.write_text(routes_to(1), encoding="utf-8")
    return file


def test_help_lists_the_commands_each_with_a_whole_sentence() -> None:
    result = said_by("--help")

    commands = dict(re.findall(r"^  (\w+) {2,}(\S.*)$", result.output, re.MULTILINE))
    assert result.exit_code == 0
    assert commands.keys() >= {"run", "check", "demo", "version"}
    assert [line for line in commands.values() if line.endswith("...")] == []


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--config", "-c", "--bind", "--admin", "GATEWAY_CONFIG", "GATEWAY_BIND"]),
        ("check", ["--config", "-c", "GATEWAY_CONFIG"]),
        ("demo", ["--consul"]),
    ],
)
def test_the_help_of_a_command_names_its_options_and_their_variables(
    command: str, options: list[str]
) -> None:
    result = said_by(command, "--help")

    assert result.exit_code == 0
    assert [option for option in options if option not in result.output] == []
    assert max(map(len, result.output.splitlines())) <= 80


def test_without_a_command_the_help_is_shown() -> None:
    result = said_by()

    assert result.exit_code == 2
    assert "Usage: gateway" in result.output


def test_a_command_that_does_not_exist_is_refused() -> None:
    result = said_by("rum")

    assert result.exit_code == 2
    assert "'rum'" in result.stderr


def test_the_version_is_told() -> None:
    result = said_by("version")

    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_check_names_every_mistake_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(MISTAKEN, encoding="utf-8")

    done = run("check", "--config", str(file))

    problems = [line.removeprefix(f"{file}:") for line in done.stderr.splitlines()]
    places = [problem.split(" ", 2)[:2] for problem in problems]
    assert done.returncode == 2
    assert done.stdout == ""
    assert places == [
        ["4:15:", "services.web.servers[0].url:"],
        ["8:5:", "routes[0].strip_prefx:"],
        ["9:26:", "routes[1].match.path_prefix:"],
        ["11:25:", "routes[1].timeouts.connect:"],
        ["12:5:", "routes[2].match:"],
    ]
    assert "did you mean 'strip_prefix'?" in problems[1]
    assert "routes[0] (line 6)" in problems[4]


def test_check_of_a_good_file_says_what_is_in_it(routes: Path) -> None:
    result = said_by("check", "--config", str(routes))

    assert result.exit_code == 0
    assert result.stdout == f"{routes}: 1 routes to 1 services, no problems\n"
    assert result.stderr == ""


def test_check_warns_of_what_is_odd_and_lets_it_pass(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\n"
        "services: {forgotten: {}}\n"
        "routes: [{match: {path_prefix: /}, service: web}]\n",
        encoding="utf-8",
    )

    result = said_by("check", "-c", str(file))

    assert result.exit_code == 0
    assert result.stderr == f"warning: {file}:2:12: services.forgotten: no route goes there\n"
    assert "no problems" in result.stdout


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, command: str) -> None:
    file = tmp_path / "nowhere.yaml"

    done = run(command, "--config", str(file))

    assert done.returncode == 2
    assert done.stderr == f"{file}: cannot be read: no such file or directory\n"


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_static_registry_needs_servers(tmp_path: Path, command: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\n"
        "routes:\n"
        "  - {match: {path_prefix: /a}, service: users}\n"
        "  - {match: {path_prefix: /b}, service: orders}\n",
        encoding="utf-8",
    )

    done = run(command, "--config", str(file), GATEWAY_REGISTRY="static")

    assert done.returncode == 2
    assert done.stderr == (
        f"{file}: services.orders: "
        "has no servers, and the registry is static: there are no instances\n"
        f"{file}: services.users: "
        "has no servers, and the registry is static: there are no instances\n"
    )


def test_all_settings_that_cannot_be_used_are_told_by_the_name_they_were_given_by(
    routes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_DRAIN_TIMEOUT", "soon")
    monkeypatch.setenv("GATEWAY_REGISTRY", "phonebook")

    result = said_by("run", "--config", str(routes), "--bind", "nonsense")

    lines = result.stderr.splitlines()
    assert result.exit_code == 2
    assert sorted(line.split(":")[0] for line in lines) == [
        "--bind",
        "GATEWAY_DRAIN_TIMEOUT",
        "GATEWAY_REGISTRY",
    ]


def test_an_option_wins_over_the_environment(
    routes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", str(tmp_path / "nowhere.yaml"))

    by_the_environment = said_by("check")
    by_the_option = said_by("check", "--config", str(routes))

    assert (by_the_environment.exit_code, by_the_option.exit_code) == (2, 0)


@pytest.mark.slow
def test_the_options_of_run_win_over_the_environment(routes: Path) -> None:
    """The admin port is said to be off by the option; the variable would have had it fail."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("", 0)) as other:
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in (taken, other)]

        done = run(
            "run",
            *("--config", str(routes), "--bind", addresses[0], "--admin", "off"),
            GATEWAY_CONFIG="nowhere.yaml",
            GATEWAY_BIND="127.0.0.1:0",
            GATEWAY_ADMIN=addresses[1],
            GATEWAY_REGISTRY="static",
        )

    assert done.returncode == 1
    assert f"cannot listen on {addresses[0]}" in done.stderr
    assert "set GATEWAY_BIND to another address" in done.stderr


@pytest.mark.slow
def test_a_certificate_that_is_none_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    file, certificate = tmp_path / "routes.yaml", tmp_path / "ca.pem"
    file.write_text("version: 1\nroutes: [{match: {path_prefix: /}, service: web}]\n")
    certificate.write_text("no certificate\n")

    done = run(
        "run",
        *("--config", str(file), "--bind", "127.0.0.1:0", "--admin", "off"),
        GATEWAY_CONSUL_ADDRESS="https://127.0.0.1:1",
        GATEWAY_CONSUL_CACERT=str(certificate),
        GATEWAY_STATE_DIR="off",
    )

    assert done.returncode == 2
    assert done.stderr.startswith("GATEWAY_CONSUL_")
    assert len(done.stderr.splitlines()) == 1
