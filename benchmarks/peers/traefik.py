"""Traefik, by its file provider. It has no request id of its own, so it need not give one."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import ONE_ROUTE, Peer
from benchmarks.processes import Command
from benchmarks.tools import which


def _run(site: Site) -> Command:
    static: dict[str, Any] = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {"in": {"address": f"{LOOPBACK}:{site.port}"}},
        "providers": {"file": {"filename": str(_dynamic(site)), "watch": False}},
        "log": {"level": "ERROR"},
    }
    if site.access_log is not None:
        static["accessLog"] = {
            "filePath": str(site.access_log),
            "format": "json",
            "bufferingSize": 1000,
        }
    path = site.write("traefik.yaml", json.dumps(static))  # JSON is YAML
    return Command(words=[which("traefik"), f"--configFile={path}"])


def _dynamic(site: Site) -> str:
    prefixes = site.layout.routes
    secured: dict[str, Any] = {} if site.certificate is None else {"tls": {}}
    routers = {
        f"route{number}": {
            "rule": f"PathPrefix(`{prefix}/`)",
            "service": service,
            "middlewares": [f"strip{number}", "again"],
            **secured,
        }
        for number, (prefix, service) in enumerate(prefixes.items())
    }
    strips = {
        f"strip{number}": {"stripPrefix": {"prefixes": [prefix]}}
        for number, prefix in enumerate(prefixes)
    }
    services = {
        name: {
            "loadBalancer": {
                "strategy": "p2c",
                # It may well try the same one again unless one failure is enough.
                "passiveHealthCheck": {"failureWindow": "10s", "maxFailedAttempts": 1},
                "servers": [{"url": f"http://{address}"} for address in addresses],
            }
        }
        for name, addresses in site.layout.services.items()
    }
    again = {"again": {"retry": {"attempts": 3}}}
    content: dict[str, Any] = {
        "http": {"routers": routers, "middlewares": {**strips, **again}, "services": services}
    }
    if site.certificate is not None:
        pair = {"certFile": str(site.certificate.chain), "keyFile": str(site.certificate.key)}
        content["tls"] = {
            "certificates": [pair],
            "stores": {"default": {"defaultCertificate": pair}},
        }
    return str(site.write("traefik-dynamic.yaml", json.dumps(content)))


TRAEFIK = Peer(
    key="traefik",
    title="Traefik",
    start=_run,
    program="traefik",
    works=ONE_ROUTE,
    gives_id=False,
)
