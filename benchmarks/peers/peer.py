"""What is known of a proxy under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.layout import Site
from benchmarks.processes import Command
from benchmarks.tools import which

FLOOD_WORKS = frozenset(
    f"flood-{name}"
    for name in ("requests", "tls", "paths", "lists", "upload", "download", "frames")
)
EVERYTHING = FLOOD_WORKS | frozenset(
    {
        *("get", "browser", "post2k", "post64k", "answer10k", "answer1m", "tls", "log"),
        *("websocket", "latency", "idle", "routes10", "routes1000", "routes10000"),
        *("fleet10", "fleet1000"),
    }
)
ONE_ROUTE = (
    EVERYTHING - FLOOD_WORKS - {"routes10", "routes1000", "routes10000", "fleet10", "fleet1000"}
)

# What a line of an access log tells, with every peer: as much as the gateway's.
LOGGED = (
    *("time", "method", "path", "host", "status", "duration_ms", "upstream_ms", "bytes_in"),
    *("bytes_out", "client", "request_id", "route", "service", "instance"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A proxy: how it is started, which works it does, and which parts of the task it cannot do.

    `start` writes its configuration into the site's folder. `program` is what must be there.
    """

    key: str
    title: str
    start: Callable[[Site], Command]
    program: str = "python"
    works: frozenset[str] = EVERYTHING
    gives_id: bool = True
    fails_over: bool = True

    @property
    def is_here(self) -> bool:
        """Whether its program is to be had."""
        return which(self.program).exists()
