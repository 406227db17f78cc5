"""The gateway and its peers, configured to do the same work.

That is: two instances, a prefix that is taken away, forwarded fields, a request id, least requests
or the like, passive health.

Each peer is a name, a way to write its configuration into a folder, and the command that starts it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Work:
    """Where things are: the peer's own port, and the ports of the two instances."""

    folder: Path
    port: int
    instances: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy under test. `program` None means that it comes with us."""

    name: str
    command: Callable[[Work], Sequence[str | Path]]
    program: Path | None = None
    environment: tuple[tuple[str, str], ...] = ()


def peers(tools: Path) -> list[Peer]:
    """List all peers that are here; those whose program is missing are left out."""
    envoy = tools / "bin" / "envoy"
    listed = [
        Peer("gateway", _gateway, environment=(("GATEWAY_ACCESS_LOG", "off"),)),
        Peer("gateway, ASGI face", _gateway_asgi, environment=(("GATEWAY_ACCESS_LOG", "off"),)),
        Peer("Envoy", lambda work: _envoy(work, envoy), envoy),
        Peer("HAProxy", _haproxy, _which("haproxy")),
        Peer("nginx", _nginx, _which("nginx")),
        Peer("Starlette + httpx", _starlette_httpx),
    ]
    return [peer for peer in listed if peer.program is None or peer.program.exists()]


def _which(program: str) -> Path:
    return Path(shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin") or "missing")


def instance(work: Work) -> Sequence[str | Path]:
    """One nginx that is both instances."""
    listens = "\n".join(f"listen 127.0.0.1:{port} reuseport;" for port in work.instances)
    config = work.folder / "instances.conf"
    config.write_text(
        f"""
daemon off; worker_processes 1; pid {work.folder}/instances.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {work.folder}/body; keepalive_requests 1000000000;
  server {{
    {listens}
    location / {{ default_type application/json;
      return 200 '{{"id": 42, "name": "Ada", "mail": "ada@example.com"}}'; }}
  }}
}}""",
        encoding="utf-8",
    )
    return [_which("nginx"), "-p", work.folder, "-c", config, "-e", "/dev/null"]


def _routes(work: Work) -> Path:
    servers = [f"http://127.0.0.1:{port}" for port in work.instances]
    routes = work.folder / "routes.yaml"
    content = {
        "version": 1,
        "services": {"users": {"servers": servers}},
        "routes": [
            {"match": {"path_prefix": "/api/users"}, "service": "users", "strip_prefix": True}
        ],
    }
    routes.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return routes


def _gateway(work: Work) -> Sequence[str | Path]:
    program = Path(sys.executable).parent / "gateway"
    bind = f"127.0.0.1:{work.port}"
    return [program, "run", "-c", _routes(work), "--bind", bind, "--admin", "off"]


def _gateway_asgi(work: Work) -> Sequence[str | Path]:
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "gateway.app:create_app"),
        *("--port", str(work.port), "--no-access-log", "--no-server-header", "--no-date-header"),
        *("--no-proxy-headers", "--log-level", "warning", "--env-file", _env_file(work)),
    ]


def _env_file(work: Work) -> Path:
    path = work.folder / "environment"
    path.write_text(f"GATEWAY_CONFIG={_routes(work)}\n", encoding="utf-8")
    return path


def _starlette_httpx(work: Work) -> Sequence[str | Path]:
    return [
        *(sys.executable, "-m", "uvicorn", "--app-dir", HERE, "starlette_httpx:app"),
        *("--port", str(work.port), "--no-access-log", "--log-level", "warning"),
        *("--env-file", _instances_file(work)),
    ]


def _instances_file(work: Work) -> Path:
    path = work.folder / "environment"
    path.write_text(f"INSTANCES={','.join(map(str, work.instances))}\n", encoding="utf-8")
    return path


def _envoy(work: Work, program: Path) -> Sequence[str | Path]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        for port in work.instances
    ]
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    manager = (
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager"
    )
    route = {
        "match": {"path_separated_prefix": "/api/users"},
        "route": {
            "cluster": "users",
            "regex_rewrite": {
                "pattern": {"regex": "^/api/users/?"},
                "substitution": "/",
            },
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
    }
    config = {
        "static_resources": {
            "listeners": [
                {
                    "address": {
                        "socket_address": {"address": "127.0.0.1", "port_value": work.port}
                    },
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "http",
                                    "typed_config": {
                                        "@type": manager,
                                        "stat_prefix": "in",
                                        "use_remote_address": True,
                                        "normalize_path": True,
                                        "merge_slashes": True,
                                        "http_filters": [
                                            {"name": "router", "typed_config": {"@type": router}}
                                        ],
                                        "route_config": {
                                            "virtual_hosts": [
                                                {"name": "all", "domains": ["*"], "routes": [route]}
                                            ]
                                        },
                                    },
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "users",
                    "connect_timeout": "2s",
                    "lb_policy": "LEAST_REQUEST",
                    "outlier_detection": {"consecutive_5xx": 5},
                    "circuit_breakers": {
                        "thresholds": [{"max_connections": 4096, "max_requests": 4096}]
                    },
                    "load_assignment": {
                        "cluster_name": "users",
                        "endpoints": [{"lb_endpoints": endpoints}],
                    },
                }
            ],
        }
    }
    path = work.folder / "envoy.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return [program, "-c", path, "--concurrency", "1", "--log-level", "error"]


def _haproxy(work: Work) -> Sequence[str | Path]:
    servers = "\n".join(
        f"  server i{port} 127.0.0.1:{port} observe layer7 error-limit 5 on-error mark-down check"
        for port in work.instances
    )
    path = work.folder / "haproxy.cfg"
    path.write_text(
        f"""
global
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 15s
  option forwardfor
  retries 2
frontend in
  bind 127.0.0.1:{work.port}
  unique-id-format %{{+X}}o%ci%cp%ts%rt
  unique-id-header X-Request-Id
  use_backend users if {{ path_beg /api/users/ }}
backend users
  balance leastconn
  http-reuse always
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request replace-path /api/users(/.*) \\1
{servers}
""",
        encoding="utf-8",
    )
    return [_which("haproxy"), "-f", path, "-db"]


def _nginx(work: Work) -> Sequence[str | Path]:
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=5;" for port in work.instances)
    path = work.folder / "nginx.conf"
    path.write_text(
        f"""
daemon off; worker_processes 1; pid {work.folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {work.folder}/b; proxy_temp_path {work.folder}/p;
  keepalive_requests 1000000000;
  upstream users {{ least_conn; {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{work.port};
    location /api/users/ {{
      proxy_pass http://users/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto http;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-Id $request_id;
    }}
  }}
}}""",
        encoding="utf-8",
    )
    return [_which("nginx"), "-p", work.folder, "-c", path, "-e", "/dev/null"]
