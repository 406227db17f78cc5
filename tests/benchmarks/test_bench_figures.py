"""What becomes of figures: medians, ratios, bounds, the page and the plot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.bounds import BOUNDS, Bound, table
from benchmarks.load.outcome import Outcome
from benchmarks.machine import Circumstances
from benchmarks.peers import PEERS
from benchmarks.plot import plot
from benchmarks.report import aligned, spoken, write
from benchmarks.rounds import Results
from benchmarks.sample import Sample
from benchmarks.summary import METRICS, Place, Summary
from benchmarks.works import WORKS

WORK = {work.key: work for work in WORKS}
PEER = {peer.key: peer for peer in PEERS}


def sample(peer: str, cpu_us: float, number: int = 0, work: str = "browser") -> Sample:
    """Make a figure of 1,000 requests in 2 seconds."""
    outcome = Outcome(count=1000, seconds=2.0, wrong=0, bytes=2**30, p50_us=900, p99_us=4000)
    return Sample.of(
        peer,
        WORK[work],
        number,
        outcome=outcome,
        cpu_s=cpu_us / 1000,
        rss_bytes=70_000_000,
        ready_s=0.5,
        grown_bytes=4_096_000,
    )


# --- Samples and summaries -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "cost"), [("get", 20.0), ("answer1m", 20.0), ("websocket", 20.0), ("idle", 4.0)]
)
def test_a_cost_is_in_the_unit_of_its_work(work: str, cost: float) -> None:
    # 20 µs for each of 1,000 requests, 20 ms for the one GiB, 4,096 bytes for each connection.
    assert sample("gateway", 20, work=work).cost == pytest.approx(cost)


def test_nothing_answered_is_no_figure() -> None:
    nothing = Outcome(count=0, seconds=2.0, wrong=3)

    with pytest.raises(ValueError, match="nothing was answered"):
        Sample.of(
            *("gateway", WORK["get"], 0),
            outcome=nothing,
            cpu_s=1,
            rss_bytes=1,
            ready_s=1,
            grown_bytes=0,
        )


def test_a_slow_moment_that_hits_all_peers_is_not_in_the_ratio() -> None:
    rounds = [(30, 40), (300, 400), (33, 40)]
    samples = [
        sample(peer, cpu_us, number)
        for number, both in enumerate(rounds)
        for peer, cpu_us in zip(("gateway", "envoy"), both, strict=True)
    ]
    summary = Summary(samples)

    ratio = summary.ratio(Place("gateway", "browser"), Place("envoy", "browser"))

    assert ratio == pytest.approx(0.75)
    assert summary.median(Place("gateway", "browser")) == pytest.approx(33)


def test_what_was_not_measured_is_none() -> None:
    summary = Summary([sample("gateway", 30)])

    assert summary.median(Place("envoy", "browser")) is None
    assert summary.ratio(Place("gateway", "browser"), Place("envoy", "browser")) is None
    assert summary.median(Place("gateway", "browser", "p99_us")) == 4000


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.title)
def test_every_bound_is_about_something_that_is_measured(bound: Bound) -> None:
    for place in filter(None, (bound.over, bound.under)):
        assert place.work in PEER[place.peer].works
        assert place.work in WORK
        assert place.metric in METRICS


@pytest.mark.parametrize(
    ("measured", "verdict"), [(0.6, "ok, aim met"), (0.8, "ok"), (0.9, "NOT MET")]
)
def test_a_bound_and_an_aim_are_two_things(measured: float, verdict: str) -> None:
    bound = Bound(title="", over=Place("gateway", "browser"), bound=0.85, aim=0.7)

    assert bound.verdict(measured) == verdict


def test_a_rate_has_a_floor() -> None:
    bound = Bound(title="", over=Place("gateway", "browser"), bound=2, is_floor=True)

    assert (bound.verdict(2.5), bound.verdict(1.5)) == ("ok", "NOT MET")
    assert bound.limit(bound.bound) == "≥ 2"


def test_of_waits_the_longest_of_all_rounds_counts() -> None:
    waits = [
        Sample.of(
            *("gateway", WORK["flood-upload"], number),
            outcome=Outcome(count=9, seconds=2, wrong=0, bytes=10, longest_us=longest_us),
            cpu_s=1,
            rss_bytes=1,
            ready_s=1,
            grown_bytes=0,
        )
        for number, longest_us in enumerate((3_000, 60_000, 2_000))
    ]

    rows = list(table(Summary(waits)))

    title = "longest wait beside an upload in chunks of one byte"
    assert rows == [(title, "≤ 50 ms", "", "60.00 ms", "NOT MET")]


def test_the_table_has_only_what_was_measured() -> None:
    summary = Summary([sample("gateway", 30), sample("envoy", 40)])

    rows = list(table(summary))

    assert rows == [("browser-like GET, CPU / Envoy's", "≤ 0.85", "≤ 0.7", "0.75", "ok")]


# --- Page, plot and terminal ---------------------------------------------------------------------

RESULTS = Results(
    samples=[
        *(sample("gateway", 30), sample("envoy", 40), sample("haproxy", 16)),
        *(sample("gateway", 90, work="latency"), sample("envoy", 45, work="latency")),
        sample("starlette", 3000),
        sample("gateway", 1, work="idle"),
    ],
    notes=["caddy, browser: it answers 404"],
    rounds=1,
)
ABOUT = Circumstances(
    date="2026-01-01 00:00 UTC",
    commit="abc",
    cpu="a CPU",
    cores=2,
    kernel="6.1",
    load=0.1,
    seconds=2.0,
    rounds=1,
    versions={"envoy": "1.40.0"},
)


def test_the_page_has_a_row_for_each_peer_and_says_what_went_wrong(tmp_path: Path) -> None:
    write(RESULTS, ABOUT, tmp_path)

    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| **gateway** | 30.0 | 0.75 | 1.88 | 500* | 0.90 | 4.00 | 70 | 0.50 |" in text
    assert "| **gateway** | 4.0 | 1,000 | 70 |" in text
    assert "- caddy, browser: it answers 404" in text
    assert "envoy 1.40.0" in text
    raw = json.loads((tmp_path / "img/benchmarks.json").read_text(encoding="utf-8"))
    assert len(raw["samples"]) == len(RESULTS.samples)


def test_the_plot_is_svg_with_a_bar_for_each_ratio_and_cuts_long_ones() -> None:
    drawn = ET.fromstring(plot(Summary(RESULTS.samples)))  # noqa: S314 -- our own

    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    texts = [one.text for one in drawn.findall("{http://www.w3.org/2000/svg}text")]
    assert len(bars) == 6  # browser and latency: peers that were measured beside Envoy
    assert "75.00 …" in texts
    assert max(float(bar.attrib["width"]) for bar in bars) == 450


def test_a_terminal_gets_columns() -> None:
    lines = list(aligned(["| | a |", "|---|---|", "| **gateway** | 1 |", "| x | 20 |"]))

    assert lines == ["          a", "gateway   1", "x        20"]
    assert "browser-like GET, CPU / Envoy's" in spoken(RESULTS, ABOUT)
    assert "WRONG: caddy, browser" in spoken(RESULTS, ABOUT)


def test_figures_of_a_busy_machine_carry_a_warning(tmp_path: Path) -> None:
    write(RESULTS, replace(ABOUT, load=3.0), tmp_path)

    assert "Others were at work" in (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "Others were at work" in spoken(RESULTS, replace(ABOUT, load=3.0))
    assert "Others were at work" not in spoken(RESULTS, ABOUT)
