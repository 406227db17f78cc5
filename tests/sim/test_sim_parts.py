"""The parts of the simulator: time, instances that die in each way, and what is read off it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import pytest

from benchmarks.sim.figures import Span, success
from benchmarks.sim.instance import PlayedInstance, State
from benchmarks.sim.page import write
from benchmarks.sim.stories import STORIES, Story
from benchmarks.sim.timeline import Timeline
from benchmarks.sim.world import Setting, World

SMALL = Setting(gateways=2, instances=3, rate=50, starts_within_s=0.1)
STORY = {story.key: story for story in STORIES}


class Asked:
    """One end of a connection: what came back on it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def answer(self, status: int, *, keeps_alive: bool) -> None:
        self.heard.append(f"{status}{'' if keeps_alive else ' close'}")

    def lose(self) -> None:
        self.heard.append("lost")


def instance(timeline: Timeline, workers: int = 1) -> PlayedInstance:
    return PlayedInstance("a", timeline, Random(1), workers=workers, work_s=0.1)


def short(key: str) -> Story:
    return replace(STORY[key], setting=SMALL, hit=1, from_s=2.0, until_s=3.0, runs_s=20.0)


# --- Time ----------------------------------------------------------------------------------------


def test_things_happen_in_order_and_those_of_one_instant_as_they_were_set() -> None:
    timeline, happened = Timeline(), list[str]()
    timeline.call_later(2, happened.append, "c")
    timeline.call_at(1, happened.append, "a")
    timeline.call_at(1, happened.append, "b")
    timeline.call_at(1.5, happened.append, "never").cancel()
    timeline.call_at(9, happened.append, "later")

    timeline.run_until(5)

    assert happened == ["a", "b", "c"]
    assert timeline.time() == 5


def test_what_should_have_happened_already_happens_now() -> None:
    timeline, happened = Timeline(), list[float]()
    timeline.run_until(5)
    timeline.call_at(1, lambda: happened.append(timeline.now_s))

    timeline.run_until(6)

    assert happened == [5]


# --- Instances -----------------------------------------------------------------------------------


def test_who_comes_while_all_workers_are_busy_waits() -> None:
    timeline = Timeline()
    one, links = instance(timeline), [Asked(), Asked()]
    for link in links:
        one.connect(link)
        one.receive(link)

    timeline.run_until(0.05)
    assert [link.heard for link in links] == [[], []]
    timeline.run_until(10)

    assert [link.heard for link in links] == [["200"], ["200"]]


@pytest.mark.parametrize(
    ("act", "new", "idle", "busy"),
    [
        (PlayedInstance.crash, "refused", ["lost"], ["lost"]),
        (PlayedInstance.vanish, "silence", [], []),
        (PlayedInstance.freeze, "taken", [], []),
        (PlayedInstance.fail, "taken", [], ["200"]),
        (PlayedInstance.stop, "refused", ["lost"], ["200 close"]),
    ],
)
def test_an_instance_can_be_unwell_in_five_ways(
    act: Callable[[PlayedInstance], None], new: str, idle: list[str], busy: list[str]
) -> None:
    timeline, quiet, at_work = Timeline(), Asked(), Asked()
    one = instance(timeline)
    for link in (quiet, at_work):
        one.connect(link)
    one.receive(at_work)

    act(one)
    timeline.run_until(10)

    assert {True: "taken", False: "refused", None: "silence"}[one.connect(Asked())] == new
    assert (quiet.heard, at_work.heard) == (idle, busy)


def test_one_that_thaws_goes_on_with_what_it_had() -> None:
    timeline, link = Timeline(), Asked()
    one = instance(timeline)
    one.connect(link)
    one.receive(link)
    one.freeze()
    timeline.run_until(10)

    one.restore()

    assert one.state is State.UP
    assert link.heard == ["200"]


def test_a_connection_from_before_a_crash_is_unknown_to_the_new_process() -> None:
    timeline, link = Timeline(), Asked()
    one = instance(timeline)
    one.connect(link)
    one.vanish()
    one.restore()

    one.receive(link)

    assert link.heard == ["lost"]


# --- Worlds --------------------------------------------------------------------------------------


def test_a_story_comes_out_the_same_each_time() -> None:
    """Also where many wait for the same tick of the clock."""
    first, second = (replace(short("half"), hit=2, until_s=15.0).play() for _ in range(2))

    assert first.attempts == second.attempts
    assert first.failed == second.failed
    assert first.ejections == second.ejections


def test_in_peace_everything_goes_well_and_every_attempt_is_sent() -> None:
    world = World(SMALL)
    world.run_until(5)
    ledger = world.finish()

    assert ledger.requests.total() > 100
    assert success(ledger, Span(0, 6)) == 1
    assert ledger.attempts.total() == ledger.sendings.total()
    assert ledger.lost.total() == 0


def test_the_page_gets_a_row_and_a_picture_for_each_story(tmp_path: Path) -> None:
    path = tmp_path / "resilience.md"
    path.write_text("before\n<!-- simulator -->\nold\n<!-- end of simulator -->\nafter\n", "utf-8")
    story = short("crash")

    write({story: story.play()}, tmp_path)

    text = path.read_text("utf-8")
    assert text.startswith("before\n<!-- simulator -->\n")
    assert text.endswith("<!-- end of simulator -->\nafter\n")
    assert "old" not in text
    assert "| **A crash**: one of 20" in text
    assert "![A crash](img/sim-crash.svg)" in text
    drawn = ET.fromstring((tmp_path / "img/sim-crash.svg").read_text("utf-8"))  # noqa: S314 -- ours
    lines = drawn.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [20, 20, 20]
