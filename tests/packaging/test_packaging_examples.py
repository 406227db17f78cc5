"""The examples can be followed: their files load and fit together, and the sample service runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.config.loading import load_routes
from gateway.core.config import RoutingConfig
from gateway.overdue import END_SLACK_S
from gateway.settings import Settings
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.helm import only, render
from tests.fakes.programs import ROOT, find_program
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S

COMPOSE = ROOT / "examples" / "compose"
KUBERNETES = ROOT / "examples" / "kubernetes"
APPS = ROOT / "examples" / "apps"
FOLDERS = [COMPOSE, KUBERNETES, APPS]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (COMPOSE / "docker-compose.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document["services"]  # type: ignore[no-any-return]  # YAML is what it is


@pytest.fixture(scope="module")
def registered() -> list[dict[str, Any]]:
    document = json.loads((COMPOSE / "services.json").read_text(encoding="utf-8"))
    return document["services"]  # type: ignore[no-any-return]  # JSON is what it is


@pytest.fixture
def sample() -> Iterator[str]:
    """Run the sample service on a free port; gives its URL."""
    command = [sys.executable, str(COMPOSE / "sample.py"), "0", "users-1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        assert program.stdout is not None
        port = program.stdout.readline().split()[-1]
        yield f"http://127.0.0.1:{port}"
        program.kill()


def services_of(routing: RoutingConfig) -> set[str]:
    """Give the names of the services that the routes go to."""
    return {route.service for route in routing.routes}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_routes_load_without_a_warning(folder: Path) -> None:
    routing = load_routes(folder / "routes.yaml", env={})

    assert len(routing.routes) == 2
    assert routing.warnings == ()


def test_every_routed_service_is_registered(registered: list[dict[str, Any]]) -> None:
    routing = load_routes(COMPOSE / "routes.yaml", env={})

    assert services_of(routing) == {service["name"] for service in registered}


def test_every_registered_instance_is_a_container_that_listens_there(
    compose: dict[str, Any], registered: list[dict[str, Any]]
) -> None:
    for service in registered:
        address, port = service["address"], service["port"]

        assert compose[address]["command"] == ["python", "/sample.py", str(port), service["id"]]
        assert service["check"]["http"] == f"http://{address}:{port}/health"


def test_every_mounted_file_exists(compose: dict[str, Any]) -> None:
    mounts = [mount for service in compose.values() for mount in service.get("volumes", [])]

    assert len(mounts) == 5
    assert [mount for mount in mounts if not (COMPOSE / mount.split(":")[0]).is_file()] == []


def test_the_image_is_built_from_this_repository(compose: dict[str, Any]) -> None:
    context = (COMPOSE / compose["gateway"]["build"]).resolve()

    assert context == ROOT
    assert (context / "Dockerfile").is_file()


def test_the_gateway_takes_the_environment_and_finds_consul(
    compose: dict[str, Any], settings_of: Callable[[Mapping[str, str]], Settings]
) -> None:
    settings = settings_of(compose["gateway"]["environment"])

    consul = re.fullmatch(r"http://(\w+):8500", settings.consul_address)
    assert consul is not None
    assert consul[1] in compose
    assert int(compose["gateway"]["stop_grace_period"].removesuffix("s")) > (
        settings.drain_timeout_s + END_SLACK_S
    )


def test_the_admin_port_is_published_to_this_machine_only(compose: dict[str, Any]) -> None:
    assert compose["gateway"]["ports"] == ["8080:8080", "127.0.0.1:9901:9901"]


def test_the_sample_service_answers_on_a_kept_connection(sample: str) -> None:
    with httpx.Client(base_url=sample, trust_env=False, timeout=PATIENCE_S) as client:
        got = client.get("/42?a=b")
        posted = client.post("/", content=b"body")

    assert got.json() == {"instance": "users-1", "path": "/42?a=b"}
    assert posted.json() == {"instance": "users-1", "path": "/", "received_bytes": 4}
    assert (got.http_version, got.headers.get("connection")) == ("HTTP/1.1", None)


@pytest.mark.slow
async def test_the_app_and_the_middleware_of_the_example_answer(tmp_path: Path) -> None:
    async with ScriptedUpstream() as shop:
        routes = (APPS / "routes.yaml").read_text(encoding="utf-8")
        for module in ("status.py", "guard.py"):
            shutil.copy(APPS / module, tmp_path)
        text = routes.replace("http://127.0.0.1:9001", f"http://{shop.authority}")
        async with (
            GatewayRun(text, tmp_path) as gateway,
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False, timeout=PATIENCE_S
            ) as client,
        ):
            status = await client.get("/status/greeting")
            refused = await client.get("/orders/42")
            passed = await client.get("/orders/42", headers={"X-Api-Key": "let-me-in"})

        assert status.json()["hello"] == "127.0.0.1"
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "ApiKey")
        assert passed.status_code == 200
        assert passed.headers["server-timing"].startswith("gateway;dur=")
        assert len(shop.requests) == 1


@pytest.mark.consul
async def test_a_real_consul_takes_the_registrations(tmp_path: Path) -> None:
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")
    config = json.loads((COMPOSE / "services.json").read_text(encoding="utf-8"))

    async with ConsulAgent(program, tmp_path, config=config) as agent:
        answer = await agent.http.get("/v1/agent/services")

    addresses = {one["ID"]: (one["Service"], one["Address"]) for one in answer.json().values()}
    assert addresses == {
        "users-1": ("users", "users-1"),
        "users-2": ("users", "users-2"),
        "orders-1": ("orders", "orders-1"),
    }


def test_the_kubernetes_values_render() -> None:
    values = yaml.safe_load((KUBERNETES / "values.yaml").read_text(encoding="utf-8"))
    routes = KUBERNETES / "routes.yaml"

    manifests = render(values, "--set-file", f"routes={routes}", release="gateway")

    text = only(manifests, "ConfigMap")["data"]["routes.yaml"]
    assert text == routes.read_text(encoding="utf-8")
    assert only(manifests, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 12
    assert (
        only(manifests, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        == 15 + 60 + END_SLACK_S
    )
    names = [one["metadata"]["name"] for one in manifests if one["kind"] == "Service"]
    assert sorted(names) == ["gateway", "gateway-admin"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_readme_names_only_what_exists(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")

    named = set(re.findall(r"`([\w./-]+\.(?:yaml|json|py))`", text))

    assert named
    assert [
        name for name in named if not ((folder / name).exists() or (ROOT / name).exists())
    ] == []
