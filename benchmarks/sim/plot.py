"""The plot of a story: success, amplification and load by the second, one above the other. SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.sim.figures import Span, amplification, load, success
from benchmarks.sim.ledger import Ledger
from benchmarks.sim.stories import Story

_LEFT, _WIDTH, _HEIGHT, _GAP, _TOP = 52, 640, 84, 34, 48
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 }
.line { fill: none; stroke: #2f6feb; stroke-width: 1.5 } .axis { stroke: #8b949e }
.fault { fill: #cf222e; opacity: 0.12 } .mark { text-anchor: end }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
</style>"""


@dataclass(frozen=True, slots=True)
class Curve:
    """One value for each second, and the ends of its axis."""

    title: str
    values: Sequence[float]
    low: float
    high: float

    def height_px(self, value: float) -> float:
        """Tell how far below the top of its panel a value stands; what is beyond stays inside."""
        inside = min(max(value, self.low), self.high)
        return (self.high - inside) / (self.high - self.low) * _HEIGHT


def plot(story: Story, ledger: Ledger) -> str:
    """Draw a story; the time in which something was wrong is shaded."""
    curves = _curves(story, ledger)
    height_px = _TOP + len(curves) * (_HEIGHT + _GAP)
    width_px = _LEFT + _WIDTH + 12
    size = f'width="{width_px}" height="{height_px}" viewBox="0 0 {width_px} {height_px}"'
    title = escape(f"{story.title}: {story.about}")
    parts = [f'<text class="title" x="4" y="16">{title}</text>']
    for number, curve in enumerate(curves):
        parts += _panel(curve, _TOP + number * (_HEIGHT + _GAP), story)
    parts += _seconds(story.runs_s, _TOP + len(curves) * (_HEIGHT + _GAP) - _GAP + 16)
    drawn = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n{_STYLE}\n{drawn}\n</svg>\n'
    )


def _curves(story: Story, ledger: Ledger) -> list[Curve]:
    seconds = [Span(second, second + 1) for second in range(int(story.runs_s))]
    amplified = [amplification(ledger, second) for second in seconds]
    loads = [_share(story, ledger, second) for second in seconds]
    who = "all instances" if story.hit == story.setting.instances else "those hit"
    return [
        Curve(
            "requests that went well, %", [success(ledger, one) * 100 for one in seconds], 0, 100
        ),
        Curve("attempts for each request", amplified, 0, max(2.0, *amplified)),
        Curve(f"load on {who}, 1 being their fair share", loads, 0, max(2.0, *loads)),
    ]


def _share(story: Story, ledger: Ledger, second: Span) -> float:
    fair = second.total(ledger.requests) * story.hit / story.setting.instances
    return load(ledger, story.hit_keys, second) / fair if fair else 0.0


def _panel(curve: Curve, top_px: int, story: Story) -> Iterator[str]:
    scale = _WIDTH / story.runs_s
    yield f'<text x="{_LEFT}" y="{top_px - 6}">{escape(curve.title)}</text>'
    width_px = (story.until_s - story.from_s) * scale
    yield (
        f'<rect class="fault" x="{_LEFT + story.from_s * scale:.1f}" y="{top_px}" '
        f'width="{width_px:.1f}" height="{_HEIGHT}"/>'
    )
    for value in (curve.low, curve.high):
        at_px = top_px + curve.height_px(value)
        yield f'<text class="mark" x="{_LEFT - 6}" y="{at_px + 4:.1f}">{value:.3g}</text>'
        yield (
            f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" '
            f'y1="{at_px:.1f}" y2="{at_px:.1f}"/>'
        )
    points = " ".join(
        f"{_LEFT + (second + 0.5) * scale:.1f},{top_px + curve.height_px(value):.1f}"
        for second, value in enumerate(curve.values)
    )
    yield f'<polyline class="line" points="{points}"/>'


def _seconds(runs_s: float, baseline_px: int) -> Iterator[str]:
    for second in range(0, int(runs_s) + 1, 10):
        at_px = _LEFT + second * _WIDTH / runs_s
        yield f'<text class="mark" x="{at_px + 8:.1f}" y="{baseline_px}">{second} s</text>'
