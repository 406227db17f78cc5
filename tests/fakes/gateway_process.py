"""`python -m gateway …` as its users run it: a process with its own ports, signals and output.

The rule: every process that is started here is ended here, by its own id, and no wait is without an
end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.fakes.waiting import wait_until

_START_WITHIN_S = 10.0


def environment(**settings: str) -> dict[str, str]:
    """Make an environment without settings of the machine's own, and with these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GATEWAY_", "CONSUL_"))
    }
    ours = {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    return kept | {"GATEWAY_STATE_DIR": "off", "GATEWAY_REGISTRY": "static"} | ours


def run_to_its_end(
    *arguments: str | Path, within_s: float = 10.0, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the gateway that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *map(str, arguments)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


class GatewayProcess:
    """`gateway run` with these routes; `settings` are environment variables without the prefix.

    An async context manager: it listens on entering, and is killed on leaving if it still runs.
    """

    def __init__(self, folder: Path, routes: str, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "routes.yaml"
        config.write_text(routes, encoding="utf-8")
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        addresses = {"bind": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        self._env = environment(**{"config": str(config), **addresses, **settings})
        self._process: subprocess.Popen[bytes]
        self.port = self.admin_port = 0

    async def __aenter__(self) -> Self:
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run"], env=self._env, stdout=stdout, stderr=stderr
            )
        try:
            await wait_until(self._has_begun, within_s=_START_WITHIN_S)
        except BaseException:
            self.kill()
            raise
        ports = {event["site"]: event["port"] for event in self.events("listening")}
        self.port, self.admin_port = ports["main"], ports["admin"]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where clients come in."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def has_ended(self) -> bool:
        """Whether the process is over."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Send SIGTERM, if it still runs."""
        if not self.has_ended:
            self._process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once."""
        if not self.has_ended:
            self._process.kill()
        self._process.wait()

    async def wait_for_exit(self, within_s: float = 5.0) -> int:
        """Wait until it has ended, and return its exit code."""
        await wait_until(lambda: self.has_ended, within_s=within_s)
        return int(self._process.returncode)

    def events(self, name: str) -> list[dict[str, Any]]:
        """List what it has logged so far under this name."""
        return [one for one in map(_parsed, _lines(self._stderr)) if one.get("event") == name]

    def requests(self) -> list[dict[str, Any]]:
        """List the lines of requests so far; whatever else stands on stdout is an error."""
        return [json.loads(line) for line in _lines(self._stdout)]

    def said(self) -> str:
        """Give all that it wrote on stderr."""
        return self._stderr.read_text(encoding="utf-8")

    async def ask_admin(self, path: str) -> tuple[int, Any]:
        """Get a page of the admin port: its status, and its JSON."""
        async with httpx.AsyncClient(trust_env=False, verify=False) as admin:
            answer = await admin.get(f"http://127.0.0.1:{self.admin_port}{path}")
        return answer.status_code, answer.json()

    async def wait_until_ready(self, within_s: float = 5.0) -> float:
        """Wait until /readyz says 200; return how long it took."""
        started_at_s = time.monotonic()
        async with asyncio.timeout(within_s):
            while (await self.ask_admin("/readyz"))[0] != 200:
                await asyncio.sleep(0.01)  # another process: there is nothing but to ask again
        return time.monotonic() - started_at_s

    def _has_begun(self) -> bool:
        assert not self.has_ended, self.said()
        return len(self.events("listening")) == 2


def _lines(path: Path) -> list[str]:
    """List the lines that are whole."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return whole.splitlines()


def _parsed(line: str) -> Mapping[str, Any]:
    """Read a line of the log; what is no JSON is a traceback or a complaint, and no event."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
