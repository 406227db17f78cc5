"""nginx, with one worker."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import LOGGED, Peer
from benchmarks.processes import Command
from benchmarks.tools import which

_FIELDS = (
    *("$time_iso8601", "$request_method", "$request_uri", "$http_host", "$status"),
    *("$request_time", "$upstream_header_time", "$request_length", "$body_bytes_sent"),
    *("$remote_addr", "$request_id", "$uri", "$proxy_host", "$upstream_addr"),
)


def _run(site: Site) -> Command:
    folder = site.folder
    secured, listen = "", f"listen {LOOPBACK}:{site.port} backlog=4096"
    if site.certificate is not None:
        pair = site.certificate
        secured = f"ssl_certificate {pair.chain}; ssl_certificate_key {pair.key};"
        listen += " ssl"
    path = site.write(
        "nginx.conf",
        f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  {_log(site)}
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; proxy_max_temp_file_size 0;
  client_max_body_size 0; client_body_buffer_size 128k;
  keepalive_requests 1000000000; keepalive_timeout 75s;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  {_services(site)}
  server {{
    {listen}; {secured}
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Request-Id $request_id;
    {_routes(site)}
  }}
}}""",
    )
    return Command(words=[which("nginx"), "-p", folder, "-c", path, "-e", "stderr"])


def _routes(site: Site) -> str:
    return "\n    ".join(
        f"location {prefix}/ {{ proxy_pass http://{service}/; }}"
        for prefix, service in site.layout.routes.items()
    )


def _services(site: Site) -> str:
    services = site.layout.services.items()
    return "\n  ".join(_service(name, addresses) for name, addresses in services)


def _service(name: str, addresses: Sequence[str]) -> str:
    listed = " ".join(f"server {address} max_fails=5 fail_timeout=10s;" for address in addresses)
    kept = "keepalive 256; keepalive_requests 1000000000;"
    return f"upstream {name} {{ least_conn; {listed} {kept} }}"


def _log(site: Site) -> str:
    if site.access_log is None:
        return "access_log off;"
    pairs = zip(LOGGED, _FIELDS, strict=True)
    line = ",".join(f'"{name}":"{field}"' for name, field in pairs)
    return (
        f"log_format line escape=json '{{{line}}}';\n"
        f"  access_log {site.access_log} line buffer=64k flush=1s;"
    )


NGINX = Peer(key="nginx", title="nginx", start=_run, program="nginx")
