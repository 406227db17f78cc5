"""The works: what is asked of every peer, and what is counted."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Load(enum.Enum):
    """Who asks, and how."""

    CLOSED = "as fast as answers come"
    HALF = "at half of the peer's own highest rate"
    ECHO = "WebSocket messages, each sent when the last came back"
    IDLE = "connections that stay"
    FLOOD = "small GETs, while another client or an instance floods"


class Unit(enum.Enum):
    """What a cost is for."""

    REQUEST = "µs/request"
    GIB = "ms/GiB"
    MESSAGE = "µs/message"
    CONNECTION = "KB/connection"
    WAIT = "ms waited at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One thing to measure.

    `body_bytes` is that of the request, `answer` names what the instances say: nothing for a small
    JSON, else a size. `routes` and `services` are how many the peer knows; with `services` each
    has 20 instances and a route of its own. `flood` names one of FLOODS. `rounds`
    is how many rounds are enough at most.
    """

    key: str
    title: str
    load: Load = Load.CLOSED
    unit: Unit = Unit.REQUEST
    is_browser: bool = False
    body_bytes: int = 0
    answer: str = ""
    flood: str = ""
    connections: int = 64
    has_tls: bool = False
    has_log: bool = False
    routes: int = 1
    services: int = 0
    rounds: int = 3


INSTANCES_EACH = 20
IDLE_CONNECTIONS = 10_000


def _flood(key: str, title: str, flood: str = "") -> Work:
    return Work(
        key=f"flood-{key}",
        title=f"longest wait beside {title}",
        load=Load.FLOOD,
        unit=Unit.WAIT,
        flood=flood or key,
        has_tls=key == "tls",
        rounds=2,
    )


WORKS = (
    Work(key="get", title="small GET"),
    Work(key="browser", title="browser-like GET (10 fields, 1.2 KB)", is_browser=True, rounds=5),
    Work(key="post2k", title="POST of 2 KB", body_bytes=2_000),
    Work(key="post64k", title="POST of 64 KB", body_bytes=64_000),
    Work(key="answer10k", title="answer of 10 KB", answer="10k"),
    Work(key="answer1m", title="answer of 1 MiB", answer="1m", unit=Unit.GIB, connections=16),
    Work(key="tls", title="browser-like GET over TLS", is_browser=True, has_tls=True),
    Work(key="log", title="browser-like GET, access log on", is_browser=True, has_log=True),
    Work(key="websocket", title="WebSocket echo", load=Load.ECHO, unit=Unit.MESSAGE),
    # Five rounds, because what is looked for between them is a few percent.
    Work(key="routes10", title="10 routes", is_browser=True, routes=10, rounds=5),
    Work(key="routes1000", title="1,000 routes", is_browser=True, routes=1_000),
    Work(key="routes10000", title="10,000 routes", is_browser=True, routes=10_000, rounds=5),
    Work(key="fleet10", title="10 services x 20 instances", is_browser=True, services=10),
    Work(key="fleet1000", title="1,000 services x 20 instances", is_browser=True, services=1_000),
    Work(key="latency", title="p99 at half the highest rate", load=Load.HALF, is_browser=True),
    Work(
        key="idle",
        title="10,000 idle connections",
        load=Load.IDLE,
        unit=Unit.CONNECTION,
        rounds=1,
    ),
    _flood("requests", "pipelined requests that the proxy answers itself"),
    _flood("tls", "the same over TLS", flood="requests"),
    _flood("paths", "pipelined requests with paths of 2,500 escapes"),
    _flood("lists", "requests with 60,000 commas in Connection"),
    _flood("upload", "an upload in chunks of one byte"),
    _flood("download", "an answer in chunks of one byte"),
    _flood("frames", "WebSocket frames without content"),
)


def names_of(work: Work) -> list[str]:
    """Name what stands behind `/api/` in the routes of a work."""
    count = work.services or work.routes
    return ["users"] if count == 1 else [f"part-{number:05}" for number in range(count)]


def asked_of(work: Work) -> list[str]:
    """Name the routes that are asked for.

    All of them, but of services always the same few, whatever number is known: what is measured is
    what it costs to know many, not to be connected with many.
    """
    names = names_of(work)
    return names[:4] if work.services else names
