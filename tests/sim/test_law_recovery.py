"""Whoever is well again has its full share of the traffic soon, and not all of it at once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.sim.figures import Span, balance, highest_wave, recovered_after_s
from benchmarks.sim.stories import STORIES, Story
from benchmarks.sim.world import Setting
from gateway.core.policy import BalanceName, BalancingPolicy

LATEST_S = 15.0
HIGHEST = 4.0  # of them the p2c gives twice the fair share to who is idle, and chance the rest
STORY = {story.key: story for story in STORIES}
CROWD = Setting(gateways=100, instances=5, rate=500, workers=8)


FROM_S = 6.0


def lasting(down_s: float, story: Story, setting: Setting, *, after_s: float) -> Story:
    """Let it last for `down_s`, and see what happens within `after_s`."""
    hit = setting.instances if story.hit == story.setting.instances else story.hit
    until_s = FROM_S + down_s
    story = replace(story, from_s=FROM_S, until_s=until_s, runs_s=until_s + after_s)
    return replace(story, setting=setting, hit=hit)


@pytest.mark.slow
@pytest.mark.parametrize("down_s", [3.0, 12.0, 25.0])
def test_one_that_crashed_has_full_traffic_soon(down_s: float) -> None:
    """Whether its Breaker, the registry or both have left it alone."""
    setting = Setting(gateways=5, instances=5, rate=500, check_every_s=10.0)
    story = lasting(down_s, STORY["crash"], setting, after_s=LATEST_S + 1)

    ledger = story.play()

    after = Span(story.until_s, story.runs_s)
    recovered_s = recovered_after_s(ledger, story.hit_keys, after, of=setting.instances)
    assert recovered_s is not None
    assert recovered_s <= LATEST_S


@pytest.mark.slow
@pytest.mark.parametrize("key", ["all", "storm"])
def test_an_outage_is_over_within_two_seconds_and_without_a_wave(key: str) -> None:
    setting = replace(CROWD, check_every_s=None)
    story = lasting(12.0, STORY[key], setting, after_s=4)

    ledger = story.play()

    after, of = Span(story.until_s, story.runs_s), setting.instances
    recovered_s = recovered_after_s(ledger, story.hit_keys, after, of=of)
    assert recovered_s is not None
    assert recovered_s <= 2.0
    assert highest_wave(ledger, story.hit_keys, after, of=of) <= HIGHEST
    outage = Span(story.until_s - 6, story.until_s)
    assert highest_wave(ledger, story.hit_keys, outage, of=of) <= HIGHEST


@pytest.mark.slow
def test_one_that_is_back_gets_no_wave_from_a_hundred_gateways() -> None:
    story = lasting(12.0, STORY["crash"], CROWD, after_s=12)

    ledger = story.play()

    after = Span(story.until_s, story.runs_s)
    assert highest_wave(ledger, story.hit_keys, after, of=CROWD.instances) <= HIGHEST


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p2c", "round_robin"])
def test_gateways_that_start_together_make_no_wave(name: BalanceName) -> None:
    balancing = BalancingPolicy(balance=name)
    setting = replace(CROWD, rate=4000, instances=40, starts_within_s=0.05, balancing=balancing)
    story = replace(STORY["cold"], setting=setting, hit=40, runs_s=2.0)

    ledger = story.play()

    assert highest_wave(ledger, story.hit_keys, Span(0, 2), of=40) <= HIGHEST


@pytest.mark.slow
def test_load_is_spread_evenly_over_a_hundred_instances() -> None:
    setting = Setting(gateways=2, instances=100, rate=8000, workers=4, starts_within_s=0.1)
    story = replace(STORY["cold"], setting=setting, hit=100, runs_s=5.0)

    ledger = story.play()

    assert balance(ledger, story.hit_keys, Span(1, 5)) <= 1.2
