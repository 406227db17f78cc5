"""The gateway itself: as `gateway run` does it, and as an ASGI app under plain uvicorn."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.instances import free_port
from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import FLOOD_WORKS, Peer
from benchmarks.processes import Command
from benchmarks.tools import which
from gateway.core.model import Instance, Snapshot
from gateway.discovery.catalog import Entry
from gateway.discovery.disk import SnapshotStore

_MAX_CONNECTIONS = "20000"
_SNAPSHOTS = "snapshots.json"  # as Settings.snapshot_file has it


def _run(site: Site) -> Command:
    bind = f"{LOOPBACK}:{site.port}"
    listen = ["--bind", bind]
    if site.certificate is not None:
        listen = [
            *("--bind", f"{LOOPBACK}:{free_port()}", "--tls-bind", bind),
            *("--tls-cert", str(site.certificate.chain), "--tls-key", str(site.certificate.key)),
        ]
    admin = ("--admin", f"{LOOPBACK}:{free_port()}")  # all that is on by default stays on
    program = (str(which("python")), "-m", "gateway")
    words = [*program, "run", "-c", str(_routes(site)), *admin, *listen]
    return Command(words=words, environment=_environment(site))


def _run_asgi(site: Site) -> Command:
    return Command(
        words=[
            *(str(which("python")), "-m", "uvicorn", "--factory", "gateway.app:create_app"),
            *("--port", str(site.port), "--no-access-log", "--no-server-header"),
            *("--no-date-header", "--no-proxy-headers", "--log-level", "warning"),
        ],
        environment={**_environment(site), "GATEWAY_CONFIG": str(_routes(site))},
    )


def _run_bounded_asgi(site: Site) -> Command:
    """Run it as the README says, with the protocol that bounds what a client sends ahead."""
    command = _run_asgi(site)
    return replace(command, words=[*command.words, "--http", "h11", "--limit-concurrency", "1000"])


def _environment(site: Site) -> dict[str, str]:
    log = "off" if site.access_log is None else str(site.access_log)
    return {
        "GATEWAY_ACCESS_LOG": log,
        "GATEWAY_LOG_FORMAT": "json",
        "GATEWAY_MAX_CONNECTIONS": _MAX_CONNECTIONS,
        **(_away(site) if site.layout.is_registered else {"GATEWAY_STATE_DIR": "off"}),
    }


def _routes(site: Site) -> Path:
    layout = site.layout
    services = {
        name: {"servers": [f"http://{address}" for address in addresses]}
        for name, addresses in layout.services.items()
    }
    content = {
        "version": 1,
        "services": {} if layout.is_registered else services,
        "routes": [
            {"match": {"path_prefix": prefix}, "service": service, "strip_prefix": True}
            for prefix, service in layout.routes.items()
        ],
    }
    return site.write("routes.yaml", json.dumps(content))  # JSON is YAML


def _away(site: Site) -> dict[str, str]:
    """Let Consul be away, and leave on disk what was known before."""
    folder = site.folder / "state"
    folder.mkdir(exist_ok=True)
    entries = {
        name: Entry(
            snapshot=Snapshot(
                service=name,
                instances=tuple(_instance(name, address) for address in addresses),
                source="consul",
            ),
            confirmed_at_s=time.monotonic(),
            is_stale=False,
        )
        for name, addresses in site.layout.services.items()
    }
    store = SnapshotStore(
        folder / _SNAPSHOTS,
        datacenter=None,
        clock=time.monotonic,
        wall_clock=time.time,  # noqa: TID251 -- the file is read by another process
    )
    store.save(entries)
    return {
        "GATEWAY_STATE_DIR": str(folder),
        "GATEWAY_CONSUL_ADDRESS": f"http://{LOOPBACK}:{free_port()}",
    }


def _instance(service: str, address: str) -> Instance:
    host, _, port = address.rpartition(":")
    key = f"{host}/{service}-1@{address}"
    meta = (("version", "1.4.2"),)
    return Instance(
        key=key, id=f"{service}-1", host=host, port=int(port), tags=("http", "v1"), meta=meta
    )


GATEWAY = Peer(key="gateway", title="**gateway**", start=_run)
ASGI_FACE = Peer(
    key="asgi",
    title="gateway, ASGI face",
    start=_run_asgi,
    works=frozenset({"get", "browser", "post2k", "answer10k"}),
)
BOUNDED_ASGI_FACE = Peer(
    key="asgi-h11",
    title="gateway, ASGI face, h11",
    start=_run_bounded_asgi,
    works=(ASGI_FACE.works | FLOOD_WORKS) - {"flood-tls", "flood-frames"},
)
