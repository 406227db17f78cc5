"""What must hold of the figures, and whether it does.

A bound is kept at all times; an aim is where we want to be. Both are for ratios within one run,
where the thing is not an amount of memory or time.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.summary import Place, Summary

_MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One line of the table: `over` (divided by `under`, or by `scale`) is at most `bound`.

    At least, where `is_floor`. In each round, not in the median, where `is_worst`. `aim` is None
    where the bound is all.
    """

    title: str
    over: Place
    under: Place | None = None
    unit: str = ""
    scale: float = 1.0
    bound: float
    aim: float | None = None
    is_floor: bool = False
    is_worst: bool = False

    def measured(self, summary: Summary) -> float | None:
        """Find the figure, None where it was not measured."""
        if self.under is not None:
            return summary.ratio(self.over, self.under)
        value = summary.longest(self.over) if self.is_worst else summary.median(self.over)
        return None if value is None else value / self.scale

    def verdict(self, measured: float) -> str:
        """Say how it stands in one word or two."""
        keeps = operator.ge if self.is_floor else operator.le
        if not keeps(measured, self.bound):
            return "NOT MET"
        if self.aim is None:
            return "ok"
        return "ok, aim met" if keeps(measured, self.aim) else "ok"

    def limit(self, value: float | None) -> str:
        """Write a limit as a person would."""
        if value is None:
            return ""
        return f"{'≥' if self.is_floor else '≤'} {value:g} {self.unit}".rstrip()

    def written(self, measured: float) -> str:
        """Write a figure with its unit."""
        return f"{measured:.2f} {self.unit}".rstrip()


def _versus(work: str, peer: str, title: str, bound: float, aim: float | None = None) -> Bound:
    """Compare the gateway's cost with a peer's."""
    us, them = Place("gateway", work), Place(peer, work)
    return Bound(title=title, over=us, under=them, bound=bound, aim=aim)


def _faster(peer: str, name: str, times: float) -> Bound:
    us, them = Place("gateway", "browser", "rate"), Place(peer, "browser", "rate")
    title = f"browser-like GET, requests/s / {name}'s"
    return Bound(title=title, over=us, under=them, bound=times, is_floor=True)


def _grown(title: str, large: str, small: str) -> Bound:
    return Bound(
        title=title, over=Place("gateway", large), under=Place("gateway", small), bound=1.05
    )


def _wait(form: str, title: str) -> Bound:
    return Bound(
        title=f"longest wait beside {title}",
        over=Place("gateway", f"flood-{form}"),
        unit="ms",
        bound=50,
        is_worst=True,
    )


BOUNDS = (
    _versus("browser", "envoy", "browser-like GET, CPU / Envoy's", 0.85, 0.70),
    _versus("browser", "haproxy", "browser-like GET, CPU / HAProxy's (an aim)", 1.6, 1.6),
    _faster("traefik", "Traefik", 2),
    _faster("caddy", "Caddy", 3),
    _faster("starlette", "Starlette + httpx", 40),
    _versus("log", "envoy", "access log on, CPU / Envoy's", 1.0, 0.85),
    _versus("post2k", "envoy", "POST of 2 KB, CPU / Envoy's", 0.9),
    _versus("tls", "envoy", "TLS, CPU / Envoy's", 0.9),
    _versus("answer1m", "envoy", "answer of 1 MiB, CPU / Envoy's", 1.0),
    _versus("answer1m", "haproxy", "answer of 1 MiB, CPU / HAProxy's (an aim)", 1.2, 1.2),
    Bound(
        title="p99 at half the highest rate / Envoy's",
        over=Place("gateway", "latency", "p99_us"),
        under=Place("envoy", "latency", "p99_us"),
        bound=1.25,
        aim=1.0,
    ),
    _grown("10,000 routes, CPU / with 10", "routes10000", "routes10"),
    _grown("1,000 services, CPU / with 10", "fleet1000", "fleet10"),
    Bound(
        title="1,000 services x 20 instances, RSS",
        over=Place("gateway", "fleet1000", "rss_bytes"),
        unit="MB",
        scale=_MB,
        bound=250,
    ),
    Bound(
        title="1,000 services x 20 instances, ready",
        over=Place("gateway", "fleet1000", "ready_s"),
        unit="s",
        bound=3,
    ),
    Bound(
        title="10,000 idle connections, RSS of each",
        over=Place("gateway", "idle"),
        unit="KB",
        bound=12,
        aim=8,
    ),
    _versus("websocket", "envoy", "WebSocket echo, CPU / Envoy's", 1.0),
    Bound(
        title="ASGI face, browser-like GET, CPU / Envoy's",
        over=Place("asgi", "browser"),
        under=Place("envoy", "browser"),
        bound=1.5,
    ),
    _wait("requests", "pipelined requests"),
    _wait("tls", "pipelined requests over TLS"),
    _wait("paths", "paths of escapes"),
    _wait("lists", "commas in Connection"),
    _wait("upload", "an upload in chunks of one byte"),
    _wait("download", "an answer in chunks of one byte"),
    _wait("frames", "empty WebSocket frames"),
)


def table(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Give the rows of what was measured: what, bound, aim, measured, verdict."""
    for one in BOUNDS:
        measured = one.measured(summary)
        if measured is not None:
            limits = (one.limit(one.bound), one.limit(one.aim))
            yield one.title, *limits, one.written(measured), one.verdict(measured)
