"""`gateway run` as a program of its own, on free ports, with what it wrote and what it left behind.

The rule: what a test sees of it is what an operator sees: its exit code, its output, its ports. It
is started in a session of its own, so that whatever it might have started can be found.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.fakes.waiting import PATIENCE_S, wait_until

_ROOT = Path(__file__).parents[2]


def clean_environment(**more: str) -> dict[str, str]:
    """Give the environment without what would configure a gateway, and with `more`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "CONSUL_"))
    }
    return kept | more


class GatewayRun:
    """`python -m gateway run` with these routes, from entering the `async with` until its end.

    Variables are given without `GATEWAY_`, in small letters. Entering waits until it is ready.
    Leaving kills it if it is still there. `open_files` are its soft and its hard limit of
    these, to be set before.
    """

    def __init__(
        self,
        routes: str,
        folder: Path,
        **variables: str,
    ) -> None:
        self.folder = folder
        self.open_files: tuple[int, int] | None = None
        self.port = self.tls_port = self.admin_port = 0
        self._listener_count = 2 + ("tls_bind" in variables) - (variables.get("bind") == "off")
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "routes.yaml"
        config.write_text(routes, encoding="utf-8")
        given = {
            "config": str(config),
            "bind": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "registry": "static",
            "state_dir": "off",
            **variables,
        }
        named = {f"GATEWAY_{name.upper()}": value for name, value in given.items()}
        self._environment = clean_environment(**named)
        self._child: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self.launch()
        try:
            listening = await self.wait_for("listening", self._listener_count)
            ports = {event["site"]: event["port"] for event in listening}
            self.port, self.admin_port = ports.get("main", 0), ports["admin"]
            self.tls_port = ports.get("tls", 0)
            await self.wait_for_readyz(200)
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def launch(self) -> None:
        """Start it."""
        wrapper: list[str] = []
        if self.open_files is not None:
            limits = "ulimit -Sn {}; ulimit -Hn {}".format(*self.open_files)
            wrapper = ["sh", "-c", f'{limits}; exec "$@"', "sh"]
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            self._child = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "gateway", "run"],
                cwd=_ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it at once, if it has not ended yet."""
        self._running.kill()
        self._running.wait()

    def signal(self, number: signal.Signals) -> float:
        """Send it a signal; return when (monotonic)."""
        self._running.send_signal(number)
        return time.monotonic()

    async def ended(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        await wait_until(lambda: self._running.poll() is not None)
        return self._running.returncode

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._running.poll() is None

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "stderr").read_text(encoding="utf-8")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it wrote to standard error, without what is not JSON."""
        return _json_lines(self.folder / "stderr")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What it wrote to standard output, without what is not JSON."""
        return _json_lines(self.folder / "stdout")

    def logged(self, name: str) -> list[dict[str, Any]]:
        """List the events of this name."""
        return [event for event in self.events if event["event"] == name]

    async def wait_for(self, name: str, count: int = 1) -> Sequence[dict[str, Any]]:
        """Wait until there are so many events of this name."""
        await wait_until(
            lambda: len(self.logged(name)) >= count or not self.is_running,
            every_s=0.02,
        )
        found = self.logged(name)
        assert len(found) >= count, self.said
        return found

    async def ask_admin(self, path: str) -> httpx.Response:
        """Get a page of the admin port, over a connection of its own."""
        # A context without any authority: reading all of them would take longer than the test.
        plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, verify=plain) as admin:
            return await admin.get(f"http://127.0.0.1:{self.admin_port}{path}")

    async def wait_for_readyz(self, status: int) -> None:
        """Wait until /readyz says so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (await self.ask_admin("/readyz")).status_code != status:
            assert time.monotonic() < deadline_s, self.said

    def leftovers(self) -> list[str]:
        """List what is still there of it: programs that it started, ports that answer."""
        programs = [f"program {pid}" for pid in _pids_in_session(self._running.pid)]
        ports = [f"port {port}" for port in (self.port, self.admin_port) if _answers(port)]
        return programs + ports

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._child is not None
        return self._child


def _json_lines(path: Path) -> list[dict[str, Any]]:
    # The last line may not be whole yet.
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _pids_in_session(session: int) -> list[int]:
    """Find programs by their session, the sixth field of their `stat` (proc(5))."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat.rpartition(")")[2].split()[3]) == session:
            pids.append(int(folder.name))
    return pids
