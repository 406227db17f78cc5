"""The instances: one nginx that is all of them, an echo for WebSocket, and one for floods.

`/told/` says what a request looked like when it arrived; a POST is read whole before it is
answered, as an application would.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.layout import LOOPBACK
from benchmarks.processes import Command, Program, running
from benchmarks.tools import which

ANSWER = json.dumps({"id": 42, "name": "Ada", "mail": "ada@example.com", "roles": ["admin"]})
_SIZES = {"10k": 10 * 1024, "1m": 1024 * 1024}
_WITHIN_S = 10.0
_PORTS = range(12_000, 32_000)
_TOLD = json.dumps(
    {
        "target": "$request_uri",
        "host": "$http_host",
        "port": "$server_port",
        "for": "$http_x_forwarded_for",
        "proto": "$http_x_forwarded_proto",
        "id": "$http_x_request_id",
    }
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where instances are: two, one on all of 127.0.0.0/8, two that echo, one for floods.

    `nobody` is a port at which nobody listens.
    """

    plain: tuple[int, int]
    everywhere: int
    echo: tuple[int, int]
    flood: int
    nobody: int


@contextlib.contextmanager
def instances(folder: Path, cores: frozenset[int]) -> Iterator[Ports]:
    """Run all instances for as long as this lasts."""
    with socket.socket() as reserved:
        # Bound and never listened on: whoever connects is refused, and nobody else gets it.
        reserved.bind((LOOPBACK, 0))
        ports = Ports(
            plain=(free_port(), free_port()),
            everywhere=free_port(),
            echo=(free_port(), free_port()),
            flood=free_port(),
            nobody=reserved.getsockname()[1],
        )
        for name, size_bytes in _SIZES.items():
            (folder / f"{name}.bin").write_bytes(b"0123456789abcdef" * (size_bytes // 16))
        app = [str(which("python")), "-m"]
        echo = Command(words=[*app, "benchmarks.apps.echo", *map(str, ports.echo)])
        flood = Command(words=[*app, "benchmarks.apps.flood", str(ports.flood)])
        with (
            running(_nginx(folder, ports), folder, cores) as nginx,
            running(echo, folder, cores) as echoing,
            running(flood, folder, cores) as flooding,
        ):
            wait_for(ports.everywhere, nginx)
            wait_for(ports.echo[1], echoing)
            wait_for(ports.flood, flooding)
            yield ports


def _nginx(folder: Path, ports: Ports) -> Command:
    listens = "".join(f"listen {LOOPBACK}:{port}; " for port in ports.plain)
    files = "".join(
        f"location /{name}/ {{ rewrite ^ /{name}.bin break; }}\n    " for name in _SIZES
    )
    config = folder / "instances.conf"
    config.write_text(
        f"""
daemon off; worker_processes 1; pid {folder}/instances.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_header_buffer_size 8k; client_body_buffer_size 128k; client_max_body_size 0;
  client_body_temp_path {folder}/instances-body;
  sendfile on; tcp_nopush on; open_file_cache max=10; root {folder};
  default_type application/json;
  server {{
    {listens} listen 0.0.0.0:{ports.everywhere};
    location / {{
      if ($request_method = POST) {{ rewrite ^ /read last; }}
      return 200 '{ANSWER}';
    }}
    # A mirror reads the body whole; what comes after it answers.
    location = /read {{ mirror /nobody; error_page 405 =200 /answer; try_files /10k.bin =404; }}
    location = /nobody {{ internal; return 204; }}
    location = /answer {{ internal; return 200 '{ANSWER}'; }}
    location /told/ {{ return 200 '{_TOLD}'; }}
    {files}
  }}
}}""",
        encoding="utf-8",
    )
    return Command(words=[which("nginx"), "-p", folder, "-c", config, "-e", "stderr"])


def free_port() -> int:
    """Find a port that is free now, among those that no client is given by chance."""
    while True:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server((LOOPBACK, port)):
            return port


def wait_for(port: int, program: Program) -> None:
    """Wait until a program listens; raises EndedEarlyError, or TimeoutError."""
    until_s = time.monotonic() + _WITHIN_S
    while time.monotonic() < until_s:
        program.check()
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 0.5):
            return
        time.sleep(0.01)
    raise TimeoutError(f"nothing listens on port {port}")
