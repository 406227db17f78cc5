"""The page: `docs/benchmarks.md`, and beside it the plot and the raw figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.bounds import table
from benchmarks.machine import Circumstances
from benchmarks.peers import PEERS
from benchmarks.plot import plot
from benchmarks.processes import ROOT
from benchmarks.rounds import Results
from benchmarks.summary import Place, Summary
from benchmarks.works import WORKS, Load, Unit, Work

DOCS = ROOT / "docs"
_MB = 1e6
_NOT_FULL = 0.9
_MOST_LOAD = 0.5
_BUSY = "**Others were at work on this machine: these figures say little.**\n"
_TITLES = {peer.key: peer.title for peer in PEERS}

_HEAD = Path(__file__).with_name("page.md")


def page(results: Results, about: Circumstances) -> str:
    """Write the page."""
    summary = Summary(results.samples)
    listed = ", ".join(f"{name} {number}" for name, number in about.versions.items())
    busy = _BUSY if about.load > _MOST_LOAD else ""
    facts = {**asdict(about), "versions": listed, "full": _NOT_FULL, "busy": busy}
    parts = [
        _HEAD.read_text(encoding="utf-8").format(**facts),
        "### Against the bounds\n",
        *_bounds(summary),
    ]
    for work in WORKS:
        if summary.peers(work.key):
            parts += [f"\n### {_title(work)}\n", *_work(work, summary)]
    if odd := results.notes + summary.wrong():
        parts += ["\n### What went wrong\n", *(f"- {note}" for note in odd)]
    return "\n".join(parts) + "\n"


def _title(work: Work) -> str:
    return work.title[0].upper() + work.title[1:]


def _bounds(summary: Summary) -> Iterator[str]:
    return rows(("", "bound", "aim", "measured", "verdict"), table(summary))


def rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """Write a table of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"


def _work(work: Work, summary: Summary) -> Iterator[str]:
    if work.unit is Unit.CONNECTION:
        head: tuple[str, ...] = ("", work.unit.value, "connections", "RSS MB")
        return rows(head, (_idle(peer, work.key, summary) for peer in _cheapest(work, summary)))
    if work.unit is Unit.WAIT:
        head = ("", work.unit.value, "p99 ms", "p50 ms", "flood MB/s", "busy")
        return rows(head, (_flood(peer, work.key, summary) for peer in _cheapest(work, summary)))
    head = ("", f"CPU {work.unit.value}", "x Envoy", "x HAProxy", "per s", "p50 ms", "p99 ms")
    head = (*head, "RSS MB", "ready s")
    return rows(head, (_line(peer, work, summary) for peer in _cheapest(work, summary)))


def _cheapest(work: Work, summary: Summary) -> list[str]:
    """Order peers by what is the point of a work."""
    metric = "p99_us" if work.load is Load.HALF else "cost"
    peers = summary.peers(work.key)
    return sorted(peers, key=lambda peer: summary.median(Place(peer, work.key, metric)) or 0)


def _line(peer: str, work: Work, summary: Summary) -> tuple[str, ...]:
    def median(metric: str, scale: float, digits: int) -> str:
        value = summary.median(Place(peer, work.key, metric))
        return "" if value is None else f"{value / scale:,.{digits}f}"

    def ratio(to: str) -> str:
        metric = "p99_us" if work.load is Load.HALF else "cost"
        found = summary.ratio(Place(peer, work.key, metric), Place(to, work.key, metric))
        return "" if found is None else f"{found:.2f}"

    is_full = (summary.median(Place(peer, work.key, "busy")) or 0) >= _NOT_FULL
    star = "" if is_full or work.load is Load.HALF else "*"
    return (
        *(_TITLES[peer], median("cost", 1, 1), ratio("envoy"), ratio("haproxy")),
        *(median("rate", 1, 0) + star, median("p50_us", 1e3, 2), median("p99_us", 1e3, 2)),
        *(median("rss_bytes", _MB, 0), median("ready_s", 1, 2)),
    )


def _idle(peer: str, work: str, summary: Summary) -> tuple[str, ...]:
    def median(metric: str) -> float:
        return summary.median(Place(peer, work, metric)) or 0.0

    rss_mb = median("rss_bytes") / _MB
    return _TITLES[peer], f"{median('cost'):.1f}", f"{median('count'):,.0f}", f"{rss_mb:,.0f}"


def _flood(peer: str, work: str, summary: Summary) -> tuple[str, ...]:
    def median(metric: str, scale: float) -> float:
        return (summary.median(Place(peer, work, metric)) or 0.0) / scale

    longest_ms = summary.longest(Place(peer, work)) or 0.0
    return (
        *(_TITLES[peer], f"{longest_ms:.1f}", f"{median('p99_us', 1e3):.1f}"),
        *(f"{median('p50_us', 1e3):.1f}", f"{median('bytes_per_s', _MB):,.0f}"),
        f"{median('busy', 1):.0%}",
    )


def write(results: Results, about: Circumstances, docs: Path = DOCS) -> None:
    """Write the page, the plot, and the raw figures."""
    images = docs / "img"
    images.mkdir(exist_ok=True)
    raw = {"about": asdict(about), "samples": [asdict(one) for one in results.samples]}
    raw["notes"] = results.notes
    text = json.dumps(raw, indent=1, ensure_ascii=False)
    (images / "benchmarks.json").write_text(text + "\n", encoding="utf-8")
    (images / "benchmarks.svg").write_text(plot(Summary(results.samples)), encoding="utf-8")
    (docs / "benchmarks.md").write_text(page(results, about), encoding="utf-8")


def spoken(results: Results, about: Circumstances) -> str:
    """Write what is printed at the end: the figures in short, and the bounds."""
    summary = Summary(results.samples)
    lines = []
    for work in WORKS:
        if summary.peers(work.key):
            lines += ["", f"{_title(work)}", *aligned(_work(work, summary))]
    lines += ["", "Bounds", *aligned(_bounds(summary))]
    lines += [_BUSY.strip("*\n")] if about.load > _MOST_LOAD else []
    lines += [f"WRONG: {note}" for note in results.notes + summary.wrong()]
    return "\n".join(lines)


def aligned(markdown: Iterable[str]) -> Iterator[str]:
    """Turn a table of Markdown into columns for a terminal."""
    cells = [
        [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]
        for line in markdown
        if not line.startswith("|---")
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *right)).rstrip()
