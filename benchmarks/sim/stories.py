"""What happens in a world: seven ways for instances to fail, and to come back.

Each story has a time of peace first, so that everything is warm, and another one at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.sim.instance import PlayedInstance
from benchmarks.sim.ledger import Ledger
from benchmarks.sim.world import Setting, World

_FLAP_S = 3.0
_NOTICE_S, _RESTART_S, _NEXT_S = 1.0, 1.0, 0.5

Play = Callable[[World, Sequence[PlayedInstance]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One story, and the world that it happens in, until `runs_s`.

    `begin` is what happens at `from_s` to the first `hit` instances, `end` at `until_s`.
    """

    key: str
    title: str
    about: str
    hit: int
    begin: Play
    end: Play
    from_s: float = 20.0
    until_s: float = 50.0
    runs_s: float = 80.0
    setting: Setting = field(default_factory=Setting)

    @property
    def has_end(self) -> bool:
        """Whether there is a moment from which on all is well again."""
        return self.end is not _nothing

    @property
    def hit_keys(self) -> list[str]:
        """Name the instances that it happens to."""
        return [f"i{number:04}" for number in range(self.hit)]

    def play(self) -> Ledger:
        """Let it happen; give what was counted."""
        world = World(self.setting)
        hit = world.instances[: self.hit]
        world.timeline.call_at(self.from_s, self.begin, world, hit)
        world.timeline.call_at(self.until_s, self.end, world, hit)
        world.run_until(self.runs_s)
        return world.finish()


def _each(act: Callable[[PlayedInstance], None]) -> Play:
    def play(_world: World, hit: Sequence[PlayedInstance]) -> None:
        for instance in hit:
            act(instance)

    return play


def _slow_down(times: float) -> Play:
    def play(_world: World, hit: Sequence[PlayedInstance]) -> None:
        for instance in hit:
            instance.slowness = times

    return play


def _flap(world: World, hit: Sequence[PlayedInstance]) -> None:
    """Go down, come up again, and so on; the end of the story restores it for good."""
    now_s = world.timeline.now_s
    for turn in range(5):
        down_s = now_s + turn * 2 * _FLAP_S
        for instance in hit:
            world.timeline.call_at(down_s, instance.crash)
            world.timeline.call_at(down_s + _FLAP_S, instance.restore)


def _deploy(world: World, hit: Sequence[PlayedInstance]) -> None:
    """Restart one after the other: deregister, wait, stop, start, register."""
    at_s = world.timeline.now_s
    for instance in hit:
        call_at = world.timeline.call_at
        call_at(at_s, world.registry.deregister, instance)
        call_at(at_s + _NOTICE_S, instance.stop)
        up_s = at_s + _NOTICE_S + _RESTART_S
        call_at(up_s, instance.restore)
        call_at(up_s, partial(world.registry.register, [instance]))
        at_s = up_s + _NEXT_S


def _nothing(_world: World, _hit: Sequence[PlayedInstance]) -> None:
    """Leave everything as it is."""


_restore = _each(PlayedInstance.restore)

STORIES = (
    Story(
        key="crash",
        title="A crash",
        about="one of 20 processes dies, and is started again 30 s later",
        hit=1,
        begin=_each(PlayedInstance.crash),
        end=_restore,
    ),
    Story(
        key="crash-100",
        title="The same, many gateways",
        about="one of 100 dies, behind 100 gateways",
        hit=1,
        begin=_each(PlayedInstance.crash),
        end=_restore,
        setting=Setting(gateways=100, instances=100, rate=2500.0, workers=2),
    ),
    Story(
        key="crash-1000",
        title="The same, many instances",
        about="ten of 1,000 die, behind 10 gateways",
        hit=10,
        begin=_each(PlayedInstance.crash),
        end=_restore,
        setting=Setting(gateways=10, instances=1000, rate=2500.0, workers=2),
    ),
    Story(
        key="frozen",
        title="A frozen instance",
        about="one of 20 takes connections and answers nothing for 30 s",
        hit=1,
        begin=_each(PlayedInstance.freeze),
        end=_restore,
    ),
    Story(
        key="slow",
        title="A slow instance",
        about="one of 20 takes 20 times as long for 30 s",
        hit=1,
        begin=_slow_down(20),
        end=_slow_down(1),
    ),
    Story(
        key="half",
        title="Half is gone",
        about="the machines of 10 of 20 are unreachable for 30 s",
        hit=10,
        begin=_each(PlayedInstance.vanish),
        end=_restore,
    ),
    Story(
        key="all",
        title="All are gone",
        about="all 20 processes die, and are started again 30 s later",
        hit=20,
        begin=_each(PlayedInstance.crash),
        end=_restore,
    ),
    Story(
        key="flapping",
        title="A flapping instance",
        about="one of 20 is down for 3 s, up for 3 s, and so on for 30 s",
        hit=1,
        begin=_flap,
        end=_restore,
    ),
    Story(
        key="storm",
        title="A retry storm",
        about="all 20 answer 503 for 30 s",
        hit=20,
        begin=_each(PlayedInstance.fail),
        end=_restore,
    ),
    Story(
        key="storm-limited",
        title="The same, limited",
        about="and an instance may have 2 requests of each gateway at once",
        hit=20,
        begin=_each(PlayedInstance.fail),
        end=_restore,
        setting=Setting(max_per_instance=2),
    ),
    Story(
        key="storm-alone",
        title="The same, unchecked",
        about="and the registry notices nothing",
        hit=20,
        begin=_each(PlayedInstance.fail),
        end=_restore,
        setting=Setting(check_every_s=None),
    ),
    Story(
        key="cold",
        title="A cold start",
        about="100 gateways start within 50 ms, and all of their clients are there already",
        hit=20,
        begin=_nothing,
        end=_nothing,
        from_s=0.0,
        until_s=0.0,
        runs_s=30.0,
        setting=Setting(gateways=100, rate=2000.0, starts_within_s=0.05),
    ),
    Story(
        key="deploy",
        title="A rolling deploy",
        about="each of 20 in turn: deregister, 1 s, stop, start, register",
        hit=20,
        begin=_deploy,
        end=_nothing,
        until_s=70.0,
    ),
)
