"""Caddy, by its own JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import ONE_ROUTE, Peer
from benchmarks.processes import Command
from benchmarks.tools import which

Json = dict[str, Any]


def _run(site: Site) -> Command:
    services = site.layout.services
    routes = [_route(prefix, services[service]) for prefix, service in site.layout.routes.items()]
    listener: Json = {
        "listen": [f"{LOOPBACK}:{site.port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "routes": routes,
    }
    apps: Json = {"http": {"servers": {"in": listener}}}
    if site.certificate is not None:
        pair = {"certificate": str(site.certificate.chain), "key": str(site.certificate.key)}
        apps["tls"] = {"certificates": {"load_files": [pair]}}
        listener["tls_connection_policies"] = [{}]
    logs: Json = {"default": {"level": "ERROR"}}
    if site.access_log is not None:
        listener["logs"] = {"default_logger_name": "access"}
        logs["access"] = {
            "writer": {"output": "file", "filename": str(site.access_log), "roll": False},
            "encoder": {"format": "json"},
            "include": ["http.log.access.access"],
        }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {"logs": logs},
        "apps": apps,
    }
    path = site.write("caddy.json", json.dumps(config))
    home = {name: str(site.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    return Command(words=[which("caddy"), "run", "--config", path], environment=home)


def _route(prefix: str, addresses: Sequence[str]) -> Json:
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": address} for address in addresses],
        "load_balancing": {"selection_policy": {"policy": "least_conn"}, "retries": 2},
        # It may well try the same one again unless one failure is enough.
        "health_checks": {"passive": {"max_fails": 1, "fail_duration": "10s"}},
        "headers": {"request": {"set": {"X-Request-Id": ["{http.request.uuid}"]}}},
        # Its own 32 would have it connect anew all the time.
        "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 256}},
    }
    strip = {"handler": "rewrite", "strip_path_prefix": prefix}
    return {"match": [{"path": [f"{prefix}/*"]}], "handle": [strip, proxy]}


CADDY = Peer(key="caddy", title="Caddy", start=_run, program="caddy", works=ONE_ROUTE)
