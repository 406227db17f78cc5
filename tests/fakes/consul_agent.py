"""Real Consul agents for tests: processes with their own ports and folders, on loopback.

An agent in dev mode keeps nothing: killing it and starting it again is a total loss of state. One
with `keeps_state` has a data folder and comes back with what it knew. Every program that is started
here is ended here, by its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.fakes.waiting import PATIENCE_S


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on now; all different.

    They are below those that the kernel gives to whoever asks for any port, so that nobody else is
    given them before they are used.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = random.randrange(15_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


class ConsulAgent:
    """One Consul process, and the calls that tests make to it.

    One with a `datacenter` is alone in it, and can `meet` those of others.
    An async context manager: starts on entering, is killed on leaving.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        name: str = "agent",
        keeps_state: bool = False,
        config: Mapping[str, Any] | None = None,
        token: str | None = None,
        datacenter: str | None = None,
    ) -> None:
        self.name = name
        self.datacenter = datacenter
        self.folder = folder / name
        self.http_port, self.server_port, self.serf_port, self.wan_port = free_ports(4)
        self._program = program
        self._keeps_state = keeps_state
        self._config = dict(config or {})
        self._process: subprocess.Popen[bytes] | None = None
        headers = {"x-consul-token": token} if token else {}
        self.http = httpx.AsyncClient(
            base_url=self.address, trust_env=False, timeout=PATIENCE_S, headers=headers
        )

    @property
    def address(self) -> str:
        """The URL of its HTTP API."""
        return f"http://127.0.0.1:{self.http_port}"

    async def __aenter__(self) -> Self:
        self.launch()
        try:
            await self.wait_until_ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        await self.http.aclose()

    def launch(self) -> None:
        """Start the process; `wait_until_ready` tells when it is of use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config_file = self.folder / "config.json"
        config_file.write_text(json.dumps(self._configuration()), encoding="utf-8")
        mode = ["-data-dir", str(self.folder / "state")] if self._keeps_state else ["-dev"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "agent", *mode, "-config-file", config_file], stdout=log, stderr=log
            )

    async def wait_until_ready(self) -> None:
        """Wait for a leader, and for the agent's own registration, which comes a little later."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self._is_ready():  # noqa: ASYNC110 - it is another program
                await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Kill it and start it again; what is left of its state depends on `keeps_state`."""
        self.kill()
        self.launch()
        await self.wait_until_ready()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def meet(self, other: ConsulAgent) -> None:
        """Join the datacenters of two agents, and wait until each can ask the other's."""
        await self.put(f"/v1/agent/join/127.0.0.1:{other.wan_port}", wan="true")
        async with asyncio.timeout(PATIENCE_S):
            while not (await self._reaches(other) and await other._reaches(self)):  # noqa: ASYNC110 - they are other programs
                await asyncio.sleep(0.02)

    async def _reaches(self, other: ConsulAgent) -> bool:
        path = f"/v1/catalog/node/{other.name}"
        response = await self.http.get(path, params={"dc": other.datacenter or ""})
        return response.is_success and bool(response.json())

    def freeze(self) -> None:
        """Stop the process without ending it: its connections stay open and silent."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    async def register(
        self, service: str, service_id: str, port: int = 8000, **payload: Any
    ) -> None:
        """Register an instance with the agent; further keys as in Consul's API."""
        body = {"Name": service, "ID": service_id, "Address": "127.0.0.1", "Port": port, **payload}
        await self.put("/v1/agent/service/register", body)

    async def register_many(self, service: str, count: int, *, first_port: int = 8000) -> None:
        """Register `count` instances called <service>-<number>."""
        for number in range(count):
            await self.register(service, f"{service}-{number}", first_port + number)

    async def register_in_catalog(self, service: str, service_id: str) -> None:
        """Write an instance into the catalog itself, as soon as there is a leader to commit it.

        What is registered with an agent during an election may reach the catalog much later.
        """
        address, port = "127.0.0.1", 8000
        entry = {"ID": service_id, "Service": service, "Address": address, "Port": port}
        body = {"Node": "elsewhere", "Address": address, "Service": entry}
        async with asyncio.timeout(PATIENCE_S):
            # Another program: there is nothing but to ask it again.
            while (await self.http.put("/v1/catalog/register", json=body)).is_error:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def deregister(self, service_id: str) -> None:
        """Take an instance out."""
        await self.put(f"/v1/agent/service/deregister/{service_id}")

    async def set_check(self, service_id: str, status: str) -> None:
        """Set the TTL check of an instance to passing, warning or critical."""
        await self.put(f"/v1/agent/check/update/service:{service_id}", {"Status": status})

    async def put(self, path: str, body: Any = None, **params: str) -> Any:
        """Send one PUT and return what it answers; anything but 200 is an error."""
        response = await self.http.put(path, json=body, params=params)
        response.raise_for_status()
        return response.json() if response.content.strip() else None

    async def get(self, path: str, **params: str) -> Any:
        """Send one GET and return what it answers; anything but 200 is an error."""
        response = await self.http.get(path, params=params)
        response.raise_for_status()
        return response.json()

    def count_connections(self) -> int:
        """Count the connections to the HTTP port that are established now, from their clients."""
        remote = f"0100007F:{self.http_port:04X}"
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        fields = (line.split() for line in lines)
        return sum(1 for field in fields if field[2] == remote and field[3] == "01")

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
        try:
            if not await self.get("/v1/status/leader"):
                return False
            return bool(await self.get(f"/v1/catalog/node/{self.name}"))
        except (httpx.HTTPError, ValueError):
            return False

    def _configuration(self) -> dict[str, Any]:
        common = {
            "node_name": self.name,
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "leave_on_terminate": False,
            "disable_update_check": True,
            "enable_debug": True,
            "performance": {"raft_multiplier": 1},
            "ports": {
                "http": self.http_port,
                "server": self.server_port,
                "serf_lan": self.serf_port,
                "serf_wan": self.wan_port if self.datacenter else -1,
                "dns": -1,
                "grpc": -1,
                "https": -1,
            },
        }
        datacenter = {"datacenter": self.datacenter} if self.datacenter else {}
        return common | datacenter | self._config

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class ConsulCluster:
    """Some servers that elect a leader among them. An async context manager."""

    def __init__(self, program: Path, folder: Path, *, size: int = 3) -> None:
        common = {"server": True, "bootstrap_expect": size}
        self.servers = [
            ConsulAgent(program, folder, name=f"server-{n}", keeps_state=True, config=common)
            for n in range(size)
        ]
        join = {"retry_join": [f"127.0.0.1:{one.serf_port}" for one in self.servers]}
        for server in self.servers:
            server._config |= join | {"retry_interval": "200ms"}

    async def __aenter__(self) -> Self:
        for server in self.servers:
            server.launch()
        try:
            for server in self.servers:
                await server.wait_until_ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self.servers:
            await server.__aexit__(None, None, None)

    async def leader(self) -> ConsulAgent:
        """Find the server that leads."""
        address = await self.servers[0].get("/v1/status/leader")
        return next(one for one in self.servers if address.endswith(f":{one.server_port}"))

    async def followers(self) -> Sequence[ConsulAgent]:
        """Find the servers that do not lead."""
        leader = await self.leader()
        return [one for one in self.servers if one is not leader]
