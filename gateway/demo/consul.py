"""A Consul in dev mode for `gateway demo --consul`, with the sample instances registered in it.

It has ports of its own and keeps nothing, so it meets no other Consul of this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from gateway.demo.children import DemoError, Sample, running_guarded
from gateway.demo.ports import free_ports

DATACENTER = "demo"

_READY_WITHIN_S = 15.0
_ASK_EVERY_S = 0.05
_CHECK_EVERY = "1s"


def find_consul(env: Mapping[str, str]) -> str:
    """Find the program: GATEWAY_TEST_CONSUL, else `consul` on the PATH; raises DemoError."""
    program = env.get("GATEWAY_TEST_CONSUL") or shutil.which("consul", path=env.get("PATH"))
    if program is None:
        raise DemoError(
            "there is no consul program on the PATH; get one from "
            "https://developer.hashicorp.com/consul/install, or leave --consul out"
        )
    if not os.access(program, os.X_OK):
        raise DemoError(f"{program} cannot be run")
    return program


@contextmanager
def running_consul(program: str, folder: Path) -> Iterator[httpx.Client]:
    """Run a Consul and give a client of its API, once it has a leader; end it in the end.

    `folder` takes its configuration and its log. Raises DemoError when it does not come up.
    """
    http_port, server_port, serf_port = free_ports(3)
    config = folder / "consul.json"
    config.write_text(json.dumps(_configuration(http_port, server_port, serf_port)))
    log = folder / "consul.log"
    command = [program, "agent", "-dev", "-config-file", str(config)]
    with (
        running_guarded(command, log=log) as child,
        # Not by way of a proxy that the environment names.
        httpx.Client(base_url=f"http://127.0.0.1:{http_port}", trust_env=False) as client,
    ):
        _wait_until_ready(client, child, log)
        yield client


def register(client: httpx.Client, sample: Sample) -> None:
    """Register an instance with a check that asks it once a second; raises DemoError."""
    body = {
        "Name": sample.service,
        "ID": sample.name,
        "Address": "127.0.0.1",
        "Port": sample.port,
        "Check": {
            "HTTP": f"http://127.0.0.1:{sample.port}/health",
            "Interval": _CHECK_EVERY,
            "Status": "passing",
        },
    }
    try:
        client.put("/v1/agent/service/register", json=body).raise_for_status()
    except httpx.HTTPError as error:
        raise DemoError(f"Consul does not take {sample.name}: {error}") from error


def _wait_until_ready(client: httpx.Client, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + _READY_WITHIN_S
    while not _has_leader(client):
        if child.poll() is not None or time.monotonic() > deadline_s:
            last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise DemoError(f"Consul does not start:\n{last_lines}")
        time.sleep(_ASK_EVERY_S)


def _has_leader(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/v1/status/leader").raise_for_status().json())
    except httpx.HTTPError:
        return False


def _configuration(http_port: int, server_port: int, serf_port: int) -> dict[str, object]:
    return {
        "datacenter": DATACENTER,
        "node_name": "gateway-demo",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "disable_update_check": True,
        "performance": {"raft_multiplier": 1},
        "ports": {
            "http": http_port,
            "server": server_port,
            "serf_lan": serf_port,
            "serf_wan": -1,
            "dns": -1,
            "grpc": -1,
            "https": -1,
        },
    }
