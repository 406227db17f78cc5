"""The table and the pictures of the documentation, made of what was counted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.sim.figures import (
    Span,
    amplification,
    balance,
    ejected_after_s,
    highest_wave,
    middle,
    recovered_after_s,
    success,
)
from benchmarks.sim.ledger import BINS_IN_S, Ledger
from benchmarks.sim.plot import plot
from benchmarks.sim.stories import Story

_NOTHING = "-"
_SETTLED_S = 15.0  # so long after its end the load must be even again
_FEWEST_IN_A_WAVE, _FEWEST_IN_BALANCE = 2, 300  # of less it is mere chance who has most
_TABLE = re.compile(r"(<!-- simulator -->\n).*?(<!-- end of simulator -->)", re.DOTALL)
_HEAD = (
    *("story", "went well", "lost: GET, POST", "load (worst second)", "failed attempts"),
    *("left alone after (last)", "full traffic after", "wave", "balance"),
)


def row(story: Story, ledger: Ledger) -> tuple[str, ...]:
    """Sum up one story."""
    fault = Span(story.from_s, story.until_s) if story.has_end else Span(0, story.runs_s)
    after = Span(story.until_s if story.has_end else story.from_s, story.runs_s)
    keys, of = story.hit_keys, story.setting.instances
    everybody = [f"i{number:04}" for number in range(of)]
    ejected = ejected_after_s(ledger, keys, fault) if story.has_end else []
    recovered_s = recovered_after_s(ledger, keys, after, of=of) if story.has_end else None
    worst = max(amplification(ledger, Span(at, at + 1)) for at in range(int(story.runs_s)))
    peace = Span(min(story.until_s + _SETTLED_S, story.runs_s - _SETTLED_S), story.runs_s)
    each_s = story.setting.rate / of
    return (
        f"**{story.title}**: {story.about}",
        f"{success(ledger, Span(0, story.runs_s)):.3%}",
        f"{ledger.lost['GET']}, {ledger.lost['POST']}",
        f"{amplification(ledger, fault):.2f} ({worst:.2f})",
        str(max(ledger.failed.values(), default=0)),
        f"{_seconds(middle(ejected))} ({_seconds(max(ejected))})" if ejected else _NOTHING,
        _seconds(recovered_s),
        f"{highest_wave(ledger, keys, after, of=of):.1f}"
        if each_s / BINS_IN_S >= _FEWEST_IN_A_WAVE
        else _NOTHING,
        f"{balance(ledger, everybody, peace):.2f}"
        if each_s * _SETTLED_S >= _FEWEST_IN_BALANCE
        else _NOTHING,
    )


def table(played: Mapping[Story, Ledger]) -> Iterator[str]:
    """Write the table, line by line."""
    yield f"| {' | '.join(_HEAD)} |"
    yield f"|{'---|' * len(_HEAD)}"
    for story, ledger in played.items():
        yield f"| {' | '.join(row(story, ledger))} |"


def write(played: Mapping[Story, Ledger], docs: Path) -> None:
    """Write the table into docs/resilience.md, and a picture for each story."""
    images = docs / "img"
    images.mkdir(exist_ok=True)
    for story, ledger in played.items():
        (images / f"sim-{story.key}.svg").write_text(plot(story, ledger), encoding="utf-8")
    lines = [*table(played), ""]
    lines += [f"![{story.title}](img/sim-{story.key}.svg)\n" for story in played]
    path = docs / "resilience.md"
    text = path.read_text(encoding="utf-8")
    made = "\n".join(lines)
    path.write_text(_TABLE.sub(lambda found: f"{found[1]}\n{made}\n{found[2]}", text), "utf-8")


def _seconds(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1f} s"
