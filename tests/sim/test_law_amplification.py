"""A service that fails as a whole gets hardly more load than its clients make."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.sim.figures import Span, amplification
from benchmarks.sim.stories import STORIES, Story
from benchmarks.sim.world import Setting

MOST = 1.25
STORY = {story.key: story for story in STORIES}
SMALL = Setting(gateways=5, instances=3, rate=100, workers=4, check_every_s=None)
MANY = Setting(gateways=10, instances=100, rate=200, workers=4, check_every_s=None)


def outage_of(key: str, setting: Setting) -> Story:
    return replace(
        STORY[key],
        setting=setting,
        hit=setting.instances,
        from_s=12.0,
        until_s=42.0,
        runs_s=44.0,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "setting"),
    [
        *(
            pytest.param("all", SMALL, id="they refuse"),
            pytest.param("half", SMALL, id="unreachable"),
        ),
        *(pytest.param("storm", SMALL, id="503"), pytest.param("storm", MANY, id="503 of many")),
        *(
            pytest.param("frozen", SMALL, id="frozen"),
            pytest.param("frozen", MANY, id="many frozen"),
        ),
    ],
)
def test_load_grows_by_a_quarter_at_most_when_all_fail(key: str, setting: Setting) -> None:
    story = outage_of(key, setting)

    ledger = story.play()

    assert amplification(ledger, Span(story.from_s, story.until_s)) <= MOST
