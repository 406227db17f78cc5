"""The plot: what each peer costs at each work, Envoy being 1. SVG, written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.peers import PEERS
from benchmarks.summary import Place, Summary
from benchmarks.works import WORKS, Load, Unit, Work

_YARDSTICK = "envoy"
_MOST = 3.0  # longer bars are cut; their number stands beside them
_SCALE = 150  # pixels for 1
_LEFT, _BAR, _GAP, _TITLE = 150, 16, 4, 34
_WIDTH = _LEFT + int(_SCALE * _MOST) + 80
_TITLES = {peer.key: peer.title.strip("*") for peer in PEERS}
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.bar { fill: #9aa4b2 } .ours { fill: #2f6feb } .line { stroke: #57606a; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .line { stroke: #8b949e } }
</style>"""


def plot(summary: Summary) -> str:
    """Draw the works at which both Envoy and others were measured; for latency its p99."""
    parts: list[str] = []
    top_px = 10
    for work in WORKS:
        ratios = _ratios(work, summary)
        if ratios:
            parts += _panel(work, ratios, top_px)
            top_px += _TITLE + len(ratios) * (_BAR + _GAP) + 8
    size = f'width="{_WIDTH}" height="{top_px}" viewBox="0 0 {_WIDTH} {top_px}"'
    drawn = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n{_STYLE}\n{drawn}\n</svg>\n'
    )


def _ratios(work: Work, summary: Summary) -> list[tuple[str, float]]:
    if work.unit is Unit.WAIT:  # a few milliseconds of a few: chance says as much as the peer
        return []
    metric = "p99_us" if work.load is Load.HALF else "cost"
    under = Place(_YARDSTICK, work.key, metric)
    found = {
        peer: summary.ratio(Place(peer, work.key, metric), under)
        for peer in summary.peers(work.key)
    }
    known = [(peer, ratio) for peer, ratio in found.items() if ratio is not None]
    return sorted(known, key=lambda one: one[1])


def _panel(work: Work, ratios: list[tuple[str, float]], top_px: int) -> Iterator[str]:
    unit = "p99" if work.load is Load.HALF else work.unit.value
    title = escape(f"{work.title}: {unit}, Envoy = 1")
    yield f'<text class="title" x="4" y="{top_px + 18}">{title}</text>'
    top_px += _TITLE - 6
    for number, (peer, ratio) in enumerate(ratios):
        yield from _bar(peer, ratio, top_px + number * (_BAR + _GAP))
    bottom_px, at_px = top_px + len(ratios) * (_BAR + _GAP), _LEFT + _SCALE
    yield f'<line class="line" x1="{at_px}" x2="{at_px}" y1="{top_px - 4}" y2="{bottom_px}"/>'


def _bar(peer: str, ratio: float, top_px: int) -> Iterator[str]:
    length_px = min(ratio, _MOST) * _SCALE
    kind = "ours" if peer in {"gateway", "asgi", "asgi-h11"} else "bar"
    baseline_px = top_px + _BAR - 4
    name = escape(_TITLES[peer])
    yield f'<text x="{_LEFT - 6}" y="{baseline_px}" text-anchor="end">{name}</text>'
    yield f'<rect class="{kind}" x="{_LEFT}" y="{top_px}" width="{length_px:.0f}" height="{_BAR}"/>'
    cut = " …" if ratio > _MOST else ""
    yield f'<text x="{_LEFT + length_px + 5:.0f}" y="{baseline_px}">{ratio:.2f}{cut}</text>'
