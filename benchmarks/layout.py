"""What a peer is told: its routes, its services, where it listens, and what else it should do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Layout:
    """Prefixes such as `/api/users`, each with its service; each service with its instances.

    `is_registered` says that a peer that follows a registry should know the instances from there.
    """

    routes: Mapping[str, str]
    services: Mapping[str, Sequence[str]]
    is_registered: bool = False


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One start of a peer: its own folder and port; `access_log` is None for none."""

    folder: Path
    port: int
    layout: Layout
    certificate: Certificate | None = None
    access_log: Path | None = None

    def write(self, name: str, text: str) -> Path:
        """Write a file of its configuration."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


def prefix(name: str) -> str:
    """Write the prefix under which a name is asked for."""
    return f"/api/{name}"


def many_routes(names: Sequence[str], ports: Sequence[int]) -> Layout:
    """Give each name a route, all to one service whose instances are these ports."""
    addresses = [f"{LOOPBACK}:{port}" for port in ports]
    return Layout({prefix(name): "users" for name in names}, {"users": addresses})


def beside(layout: Layout, port: int) -> Layout:
    """Add a route and a service for the instance that floods, and takes floods."""
    return Layout(
        {**layout.routes, prefix("flood"): "flood"},
        {**layout.services, "flood": [f"{LOOPBACK}:{port}"]},
    )


def fleet(names: Sequence[str], each: int, port: int) -> Layout:
    """Give each name a route and a service with `each` instances.

    All the addresses of 127.0.0.0/8 are this machine, so one listener is all of them.
    """
    services = {
        name: [
            f"127.{1 + number // 250}.{1 + number % 250}.{1 + one}:{port}" for one in range(each)
        ]
        for number, name in enumerate(names)
    }
    return Layout({prefix(name): name for name in names}, services, is_registered=True)
