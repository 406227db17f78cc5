"""A dead instance costs a few attempts, and no client notices that may be sent elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.sim.stories import STORIES, Story
from benchmarks.sim.world import Setting

MOST = 5
STORY = {story.key: story for story in STORIES}
# With few requests at once at each instance: what is on its way already when an instance dies, or
# when its Breaker opens, cannot be called back.
FEW = Setting(gateways=4, instances=10, rate=400, check_every_s=None)
MANY = Setting(gateways=50, instances=20, rate=600, check_every_s=10.0)
ALONE = Setting(gateways=1, instances=3, rate=60, check_every_s=None)


def story_of(key: str, setting: Setting) -> Story:
    return replace(STORY[key], setting=setting, from_s=6.0, until_s=24.0, runs_s=30.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [*(replace(FEW, seed=seed) for seed in range(1, 6)), MANY, ALONE],
    ids=[*(f"few, seed {seed}" for seed in range(1, 6)), "many", "alone"],
)
def test_a_crash_costs_each_gateway_five_attempts_and_no_client_anything(setting: Setting) -> None:
    """Five, of which the last one opens the Breaker, and those that were on their way with it."""
    ledger = story_of("crash", setting).play()

    trials = {place: count - 1 for place, count in ledger.openings.items()}
    assert ledger.failed
    for place, count in ledger.failed.items():
        on_their_way = max(0, ledger.on_their_way[place] - 1)
        assert count <= MOST + on_their_way + trials.get(place, 0)
    assert ledger.lost["GET"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("key", ["frozen", "flapping", "slow", "deploy"])
def test_no_get_fails_whatever_is_wrong_with_one_instance(key: str) -> None:
    ledger = story_of(key, FEW).play()

    assert ledger.lost["GET"] == 0


@pytest.mark.slow
def test_a_rolling_deploy_fails_nothing_at_all() -> None:
    ledger = story_of("deploy", MANY).play()

    assert ledger.requests.total() > 10_000
    assert ledger.lost.total() == 0
