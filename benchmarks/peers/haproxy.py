"""HAProxy, with one thread. Many prefixes are looked up in a map, which is a tree.

Its passive health belongs to active checks, and those take a file for each instance: more than may
be open for a large fleet, which therefore has neither.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import LOGGED, Peer
from benchmarks.processes import Command, most_connections
from benchmarks.tools import which

_SMALL_FLEET = 100
_HEALTH = " observe layer7 error-limit 5 on-error mark-down check"
_FIELDS = (
    *("%tr", "%HM", "%[capture.req.uri,json(utf8s)]", "%[capture.req.hdr(0),json(utf8s)]"),
    *("%ST", "%Ta", "%Tr", "%U", "%B", "%ci", "%ID", "%f", "%b", "%s"),
)


def _run(site: Site) -> Command:
    secured = ""
    if site.certificate is not None:
        pair = site.certificate
        both = pair.chain.read_text(encoding="ascii") + pair.key.read_text(encoding="ascii")
        secured = f" ssl crt {site.write('haproxy.pem', both)} alpn http/1.1"
    lookup = "".join(f"{prefix}/ {name}\n" for prefix, name in site.layout.routes.items())
    routes = site.write("routes.map", lookup)
    path = site.write(
        "haproxy.cfg",
        f"""
global
  nbthread 1
  maxconn {most_connections()}
{_log_target(site)}
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 15s
  timeout tunnel 5m
  option forwardfor
  option redispatch 1
  retries 2
frontend in
  bind {LOOPBACK}:{site.port} backlog 4096{secured}
{_log_format(site)}
  unique-id-format %{{+X}}o%ci%cp%ts%rt
  unique-id-header X-Request-Id
  http-request set-header X-Forwarded-Proto {"http" if site.certificate is None else "https"}
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  use_backend %[path,map_beg({routes})]
{_services(site)}
""",
    )
    # It writes no files itself: lines go to standard output, which is the file.
    return Command(words=[which("haproxy"), "-f", path, "-db"], stdout=site.access_log)


def _services(site: Site) -> str:
    services = site.layout.services
    total = sum(map(len, services.values()))
    health = _HEALTH if total <= _SMALL_FLEET else ""
    return "\n".join(_service(name, addresses, health) for name, addresses in services.items())


def _service(name: str, addresses: Sequence[str], health: str) -> str:
    listed = "\n".join(
        f"  server i{number} {address}{health}" for number, address in enumerate(addresses)
    )
    return f"""
backend {name}
  balance leastconn
  http-reuse always
  http-request replace-path /api/[^/]+(/.*) \\1
{listed}
"""


def _log_target(site: Site) -> str:
    return "" if site.access_log is None else "  log stdout len 4096 format raw local0 info"


def _log_format(site: Site) -> str:
    if site.access_log is None:
        return ""
    quoted = {name: f'"{field}"' for name, field in zip(LOGGED, _FIELDS, strict=True)}
    for number in ("status", "duration_ms", "upstream_ms", "bytes_in", "bytes_out"):
        quoted[number] = quoted[number].strip('"')
    line = ",".join(f"{json.dumps(name)}:{field}" for name, field in quoted.items())
    return f"  log global\n  capture request header Host len 64\n  log-format '{{{line}}}'"


HAPROXY = Peer(key="haproxy", title="HAProxy", start=_run, program="haproxy")
