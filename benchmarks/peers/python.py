"""The proxies that one writes in an hour. They take turns among instances and know no failures."""

from __future__ import annotations

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import Peer
from benchmarks.processes import Command
from benchmarks.tools import which


def _run_starlette(site: Site) -> Command:
    return Command(
        words=[
            *(which("python"), "-m", "uvicorn", "benchmarks.apps.starlette_httpx:app"),
            *("--host", LOOPBACK, "--port", str(site.port)),
            *("--no-access-log", "--log-level", "warning"),
        ],
        environment=_instances(site),
    )


def _run_aiohttp(site: Site) -> Command:
    words = [str(which("python")), "-m", "benchmarks.apps.aiohttp_proxy", str(site.port)]
    return Command(words=words, environment=_instances(site))


def _instances(site: Site) -> dict[str, str]:
    (addresses,) = site.layout.services.values()
    return {"INSTANCES": ",".join(addresses)}


_WORKS = frozenset({"get", "browser", "post2k"})

AIOHTTP = Peer(key="aiohttp", title="aiohttp", start=_run_aiohttp, works=_WORKS, fails_over=False)
STARLETTE_HTTPX = Peer(
    key="starlette",
    title="Starlette + httpx",
    start=_run_starlette,
    works=_WORKS,
    fails_over=False,
)
