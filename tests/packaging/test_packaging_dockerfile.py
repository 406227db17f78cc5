"""The Dockerfile keeps its promises: small, not root, tells its health, hears SIGTERM.

There is no container engine here, so it is read, and what can be run of it is run.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from dockerfile_parse import DockerfileParser

from gateway.core.addresses import ListenAddress
from gateway.settings import Settings
from tests.fakes.scenes import respond
from tests.fakes.upstream import ScriptedUpstream

ROOT = Path(__file__).parents[2]


class Step(NamedTuple):
    """One instruction: its name and the rest of it, continued lines joined."""

    name: str
    value: str


def stages() -> list[list[Step]]:
    """Split the Dockerfile into its stages, each beginning with FROM."""
    found: list[list[Step]] = []
    for part in DockerfileParser(str(ROOT / "Dockerfile")).structure:
        step = Step(part["instruction"], part["value"])
        if step.name == "FROM":
            found.append([])
        if found and step.name != "COMMENT":
            found[-1].append(step)
    return found


def final(name: str) -> str:
    """Give the one instruction of that name in the last stage."""
    (value,) = [step.value for step in stages()[-1] if step.name == name]
    return value


def environment() -> dict[str, str]:
    """Give the environment of the final image."""
    return dict(setting.split("=", 1) for setting in shlex.split(final("ENV")))


def copied_sources() -> list[str]:
    """List what is copied from the build context."""
    copies = [step.value for stage in stages() for step in stage if step.name == "COPY"]
    return [
        source.rstrip("/")
        for copy in copies
        if not copy.startswith("--from=")
        for source in shlex.split(copy)[:-1]
    ]


async def check_health(admin_port: int) -> int:
    """Run the HEALTHCHECK against a port, give its exit code."""
    options, command = final("HEALTHCHECK").split("CMD", 1)
    assert "--timeout=3s" in options
    python, *arguments = json.loads(command)
    assert python == "python"
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *arguments],
        env={"GATEWAY_ADMIN": f"0.0.0.0:{admin_port}"},
        stderr=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    return result.returncode


def test_it_builds_in_one_stage_and_runs_in_another() -> None:
    build, runtime = stages()

    assert build[0].value.endswith(" AS build")
    copies = [step.value for step in runtime if step.name == "COPY"]
    assert copies == ["--from=build /opt/gateway /opt/gateway"]


def test_the_final_image_has_nothing_to_build_with() -> None:
    commands = [step.value for step in stages()[-1] if step.name == "RUN"]

    assert any(command.startswith("pip uninstall --yes") for command in commands)
    for tool in ("apt-get", "pip install", "pip wheel", "gcc", "curl"):
        assert not any(tool in command for command in commands)


def test_it_runs_as_a_number_that_is_not_root() -> None:
    """Kubernetes checks runAsNonRoot against a number only; a name stops the pod."""
    user, group = final("USER").split(":")

    assert int(user) > 0
    assert int(group) > 0
    assert f"install -d -o {user} -g {group} {environment()['GATEWAY_STATE_DIR']}" in final("RUN")


def test_its_entrypoint_is_the_installed_command_without_a_shell() -> None:
    """A shell in between would keep SIGTERM for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    (command,) = json.loads(final("ENTRYPOINT"))

    assert command in project["scripts"]
    assert json.loads(final("CMD")) == ["run"]
    assert final("STOPSIGNAL") == "SIGTERM"


def test_its_environment_is_one_that_the_gateway_takes(
    settings_of: Callable[[Mapping[str, str]], Settings],
) -> None:
    env = environment()

    settings = settings_of({name: env[name] for name in env if name.startswith("GATEWAY_")})

    assert settings.config == Path("/etc/gateway/routes.yaml")
    assert settings.bind == ListenAddress("0.0.0.0", 8080)
    assert settings.admin == ListenAddress("0.0.0.0", 9901)
    assert [str(settings.state_dir)] == json.loads(final("VOLUME"))
    assert final("EXPOSE").split() == ["8080", "9901"]


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    sources = copied_sources()

    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert ignored[1] == "*"
    let_through = {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
    assert set(sources) == let_through


def test_everything_that_the_build_needs_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = "scripts/locks/run.txt"
    needed = {"pyproject.toml", "gateway", locked, project["readme"], *project["license-files"]}

    assert needed == set(copied_sources())


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_what_the_build_runs_makes_an_environment_that_works(tmp_path: Path) -> None:
    """Its commands, with other paths: from the lock alone, and without `requests`."""
    for source in copied_sources():
        target = tmp_path / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, target)
    build, _ = stages()
    (run,) = [step.value for step in build if step.name == "RUN"]
    _, script = run.split(maxsplit=1)
    for path in ("/wheels", "/opt/gateway"):
        script = script.replace(path, f"{tmp_path}{path}")
    python = f" {sys.executable} "
    script = f" {script}".replace(" python ", python).replace(" pip ", f"{python}-m pip ")
    subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=tmp_path / "src",
        check=True,
    )

    program = tmp_path / "opt/gateway/bin/python"
    found = subprocess.run(
        [program, "-c", "import requests"], capture_output=True, text=True, check=False
    )
    assert "No module named 'requests'" in found.stderr


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1)])
async def test_its_health_check_asks_livez_on_the_admin_port(status: int, exit_code: int) -> None:
    async with ScriptedUpstream() as admin:
        admin.on_request(respond(status))

        code = await check_health(admin.port)

    assert code == exit_code
    assert [request.target for request in admin.requests] == [b"/livez"]


async def test_its_health_check_fails_when_nobody_listens() -> None:
    async with ScriptedUpstream() as admin:
        await admin.refuse()

        code = await check_health(admin.port)

    assert code != 0
