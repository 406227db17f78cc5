"""The loop of a watcher, with a source that is played by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from gateway.core.hold import HoldPolicy
from gateway.core.model import Instance, Skipped, Snapshot
from gateway.core.watch import Phase, Trouble, WatchPolicy
from gateway.discovery.catalog import Catalog
from gateway.discovery.link import Link, LinkPolicy
from gateway.discovery.source import Answer, SourceError
from gateway.discovery.watcher import MANY, WatchBudget, Watcher, WatcherContext, WatcherPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import wait_until

POLICY = WatcherPolicy(
    wait_s=60.0,
    poll_s=0.01,
    polls_before_watching=3,
    watch=WatchPolicy(
        backoff_min_s=0.001, backoff_max_s=0.001, rate_per_s=1000, noise_step_s=0.001
    ),
    hold=HoldPolicy(hold_for_s=0.2, empty_hold_s=0.05),
)


class PlayedSource:
    """A source whose every question waits until the test answers it."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.is_closed = False
        self._play: asyncio.Queue[Answer | Exception] = asyncio.Queue()

    def play(self, *outcomes: Answer | Exception) -> None:
        """Answer the next questions so."""
        for outcome in outcomes:
            self._play.put_nowait(outcome)

    async def query(self, service: str, *, index: int) -> Answer:
        self.asked.append(index)
        outcome = await self._play.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass
class Scene:
    """A watcher with all that is around it."""

    clock: Callable[[], float] = time.monotonic
    catalog: Catalog = field(default_factory=lambda: Catalog(clock=time.monotonic))
    poll: PlayedSource = field(default_factory=PlayedSource)
    watches: list[PlayedSource] = field(default_factory=list)
    budget: WatchBudget = field(default_factory=lambda: WatchBudget(1))
    probe_error: SourceError | None = None
    published: list[Snapshot] = field(default_factory=list)

    async def probe(self) -> None:
        if self.probe_error is not None:
            raise self.probe_error

    def open_watch(self) -> PlayedSource:
        self.watches.append(PlayedSource())
        return self.watches[-1]

    @property
    def watch(self) -> PlayedSource:
        return self.watches[-1]

    def ids(self) -> list[str]:
        entry = self.catalog.get("web")
        return [one.id for one in entry.snapshot.instances] if entry is not None else []

    @asynccontextmanager
    async def running(self, policy: WatcherPolicy = POLICY) -> AsyncIterator[Watcher]:
        """Run the watcher until the block ends."""
        link_policy = LinkPolicy(heartbeat_s=60, resync_s=0, retry=WatchPolicy(backoff_max_s=0.01))
        self.link = Link(self.probe, clock=self.clock, random=lambda: 0.5, policy=link_policy)
        context = WatcherContext(
            registry="consul",
            catalog=self.catalog,
            link=self.link,
            poll=self.poll,
            open_watch=self.open_watch,
            budget=self.budget,
            clock=self.clock,
            random=lambda: 0.5,
            policy=policy,
        )
        watcher = Watcher("web", context)
        self.catalog.subscribe(self.published.append)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.link.run()), tasks.create_task(watcher.run())]
            try:
                yield watcher
            finally:
                for task in running:
                    task.cancel()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def instance(name: str) -> Instance:
    return Instance(key=name, id=name, host="127.0.0.1", port=80)


def answer(index: int, *names: str) -> Answer:
    return Answer(index=index, instances=tuple(instance(name) for name in names))


CUT = SourceError(Trouble.CUT, "closed")


async def test_it_asks_from_zero_and_then_from_the_index_of_each_answer(scene: Scene) -> None:
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), answer(9, "a", "b"))
        await wait_until(lambda: len(scene.watch.asked) == 3)

    assert scene.watch.asked == [0, 7, 9]
    assert [one.index for one in scene.published] == [7, 9]


async def test_a_snapshot_is_as_old_as_the_question_that_it_answers(scene: Scene) -> None:
    """A blocking answer says that it is fresh even when its registry has died meanwhile."""
    scene.clock = clock = FakeClock()
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"))
        await wait_until(lambda: len(scene.watch.asked) == 2)
        asked_s = clock()
        clock.advance(5.0)
        scene.watch.play(answer(8, "a"))
        await wait_until(lambda: len(scene.watch.asked) == 3)

        entry = scene.catalog.entries()["web"]
        assert entry.confirmed_at_s == asked_s


async def test_after_an_error_it_asks_from_zero_and_marks_the_service_stale(scene: Scene) -> None:
    async with scene.running() as watcher:
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), CUT)
        await wait_until(lambda: len(scene.watch.asked) == 3)

        assert scene.watch.asked == [0, 7, 0]
        assert scene.catalog.entries()["web"].is_stale
        assert (watcher.status().phase, watcher.status().trouble) == (Phase.DEGRADED, Trouble.CUT)

        scene.watch.play(answer(8, "a"))
        await wait_until(lambda: watcher.status().phase is Phase.LIVE)
        assert not scene.catalog.entries()["web"].is_stale
        assert watcher.status().trouble is None


async def test_while_the_registry_is_away_nothing_is_asked(scene: Scene) -> None:
    scene.probe_error = SourceError(Trouble.UNREACHABLE, "refused")
    async with scene.running() as watcher:
        await wait_until(lambda: scene.link.probe_count > 3)

        assert scene.watches == []
        assert watcher.status().asked_count == 0
        assert watcher.status().phase is Phase.DEGRADED

        scene.probe_error = None
        await wait_until(lambda: scene.watches)


async def test_a_refused_connection_takes_the_link_down_without_a_probe(scene: Scene) -> None:
    refused = SourceError(Trouble.UNREACHABLE, "refused")
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.probe_error = refused
        scene.watch.play(refused)

        await wait_until(lambda: scene.link.health().reachable is False)


async def test_a_watch_that_fails_while_the_registry_is_there_becomes_a_poll_and_tries_again(
    scene: Scene,
) -> None:
    async with scene.running() as watcher:
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), CUT, answer(7, "a"), CUT, answer(7, "a"), CUT)
        await wait_until(lambda: scene.poll.asked)
        first = scene.watches[0]

        assert first.is_closed
        assert watcher.status().is_polling

        scene.poll.play(*[answer(7, "a")] * 3)
        await wait_until(lambda: len(scene.watches) == 2)
        scene.watch.play(CUT)  # once more is enough: it had its chances
        await wait_until(lambda: len(scene.poll.asked) == 4)


async def test_without_room_for_a_watch_it_polls_until_there_is_some(scene: Scene) -> None:
    assert scene.budget.take()
    async with scene.running() as watcher:
        scene.poll.play(answer(7, "a"))
        await wait_until(lambda: scene.ids() == ["a"])
        assert (scene.watches, watcher.status().is_polling) == ([], True)

        scene.budget.give_back()
        scene.poll.play(answer(7, "a"))
        await wait_until(lambda: scene.watches)
        assert not watcher.status().is_polling


async def test_an_index_that_goes_back_is_noticed_by_a_poll_too(scene: Scene) -> None:
    assert scene.budget.take()
    scene.clock = clock = FakeClock()
    async with scene.running():
        scene.poll.play(answer(7, "a"), answer(8, "a"), answer(3))
        await wait_until(lambda: len(scene.poll.asked) == 4)

        held = scene.catalog.entries()["web"].snapshot
        assert [one.held for one in held.instances] == [True]
        assert held.held_until_s == clock() + 0.2  # untrusted: not 0.05


async def test_held_instances_are_let_go_when_no_further_answer_comes(scene: Scene) -> None:
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), answer(8, "a"), answer(9))
        await wait_until(lambda: len(scene.watch.asked) == 4)
        assert scene.ids() == ["a"]

        await wait_until(lambda: scene.ids() == [])
        assert len(scene.watch.asked) == 4
        assert scene.catalog.entries()["web"].snapshot.held_until_s is None


async def test_held_instances_stay_for_as_long_as_the_registry_cannot_be_asked(
    scene: Scene,
) -> None:
    async with scene.running() as watcher:
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), answer(8, "a"), answer(9))
        await wait_until(lambda: len(scene.watch.asked) == 4)
        scene.probe_error = CUT
        scene.watch.play(CUT)
        await wait_until(lambda: not scene.link.is_up)
        await asyncio.sleep(0.1)  # twice as long as an empty answer is held

        assert scene.ids() == ["a"]
        assert watcher.status().phase is Phase.DEGRADED


async def test_an_answer_from_before_the_registry_got_lost_is_not_trusted(scene: Scene) -> None:
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a", "b"), answer(8, "a", "b"))
        await wait_until(lambda: len(scene.watch.asked) == 3)
        scene.probe_error = CUT
        scene.link.lost("gone")

        scene.watch.play(answer(9, "a"))
        await wait_until(lambda: len(scene.published) == 2)

        assert scene.ids() == ["a", "b"]


async def test_a_new_leader_that_answers_once_from_before_takes_nothing_out(scene: Scene) -> None:
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a", "b"), answer(9, "a", "b", "c"))
        await wait_until(lambda: len(scene.watch.asked) == 3)
        scene.watch.play(SourceError(Trouble.NO_LEADER, "No cluster leader"))
        scene.watch.play(answer(8, "a", "b"), answer(9, "a", "b", "c"))
        await wait_until(lambda: len(scene.watch.asked) == 6)

        assert [len(one.instances) for one in scene.published] == [2, 3, 3, 3]
        assert [one.id for one in scene.published[2].instances if one.held] == ["c"]
        assert not any(one.held for one in scene.published[3].instances)


async def test_a_filtered_answer_means_denied_and_takes_nothing_away(scene: Scene) -> None:
    filtered = replace(answer(9), is_filtered=True)
    async with scene.running() as watcher:
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), answer(8, "a"), filtered)
        await wait_until(lambda: watcher.status().phase is Phase.DENIED)

        assert scene.ids() == ["a"]
        assert scene.catalog.entries()["web"].is_stale
        assert watcher.status().trouble is Trouble.DENIED


async def test_a_fault_of_our_own_is_logged_and_the_watcher_lives_on(scene: Scene) -> None:
    with capture_logs() as logs:
        async with scene.running() as watcher:
            await wait_until(lambda: scene.watches)
            scene.watch.play(ZeroDivisionError("ours"), answer(7, "a"))
            await wait_until(lambda: scene.ids() == ["a"])

            assert watcher.status().error_count == 1

    assert [one["log_level"] for one in logs if one["event"] == "watcher_failed"] == ["error"]


async def test_a_trouble_that_begins_in_an_outage_is_logged_after_it(scene: Scene) -> None:
    """What never had an answer is degraded from the start, and must not be so silently."""
    scene.probe_error = SourceError(Trouble.UNREACHABLE, "away")
    nowhere = SourceError(Trouble.PROTOCOL, "No path to datacenter")
    with capture_logs() as logs:
        async with scene.running() as watcher:
            await wait_until(lambda: watcher.status().phase is Phase.DEGRADED)
            scene.probe_error = None
            await wait_until(lambda: scene.watches)
            scene.watch.play(nowhere, nowhere)
            await wait_until(lambda: len(scene.watch.asked) == 3)

    told = [one["detail"] for one in logs if one["event"] == "watch_failed"]
    assert told == ["No path to datacenter"]


async def test_a_trouble_is_logged_when_it_begins_and_not_again(scene: Scene) -> None:
    denied = SourceError(Trouble.DENIED, "no rights")
    policy = replace(POLICY, watch=replace(POLICY.watch, slow_min_s=0, slow_max_s=0.01))
    with capture_logs() as logs:
        async with scene.running(policy):
            await wait_until(lambda: scene.watches)
            scene.watch.play(answer(7, "a"), denied, denied, denied)
            await wait_until(lambda: len(scene.watch.asked) == 5)

    assert [one["detail"] for one in logs if one["event"] == "watch_failed"] == ["no rights"]


async def test_entries_that_are_skipped_are_logged_when_their_number_changes(
    scene: Scene,
) -> None:
    counts = [1, 1, 2, 0]
    answers = [replace(answer(7 + n, "a"), skipped_count=count) for n, count in enumerate(counts)]
    with capture_logs() as logs:
        async with scene.running():
            await wait_until(lambda: scene.watches)
            scene.watch.play(*answers)
            await wait_until(lambda: len(scene.watch.asked) == 5)

    assert [one["count"] for one in logs if one["event"] == "entries_skipped"] == [1, 2, 0]


async def test_entries_that_are_skipped_are_named_in_the_log_and_in_the_snapshot(
    scene: Scene,
) -> None:
    skipped = (Skipped("n/b", "it is registered without a port"),)
    with capture_logs() as logs:
        async with scene.running():
            await wait_until(lambda: scene.watches)
            scene.watch.play(replace(answer(7), skipped=skipped, skipped_count=1), answer(8))
            await wait_until(lambda: len(scene.watch.asked) == 3)

    told = [one["entries"] for one in logs if one["event"] == "entries_skipped"]
    assert told == [["n/b: it is registered without a port"], []]
    assert [one.skipped for one in scene.published] == [skipped, ()]


async def test_asked_again_it_ends_the_question_and_the_pause_and_begins_from_zero(
    scene: Scene,
) -> None:
    denied = SourceError(Trouble.DENIED, "no rights")
    policy = replace(POLICY, watch=replace(POLICY.watch, slow_min_s=3600, slow_max_s=3600))
    async with scene.running(policy) as watcher:
        watcher.ask_again()  # before anything was asked there is nothing to end
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"))
        await wait_until(lambda: len(scene.watch.asked) == 2)
        watcher.ask_again()
        watcher.ask_again()
        await wait_until(lambda: len(scene.watch.asked) == 3)
        assert scene.watch.asked == [0, 7, 0]
        assert scene.catalog.entries()["web"].is_stale

        scene.watch.play(denied)
        await wait_until(lambda: watcher.denial == "no rights")
        watcher.ask_again()
        await wait_until(lambda: len(scene.watch.asked) == 4)
        scene.watch.play(answer(9, "a"))
        await wait_until(lambda: watcher.denial is None)
        assert watcher.has_seen


async def test_asked_again_in_the_turn_in_which_a_round_ends_it_begins_from_zero(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_round = Watcher._round
    async with scene.running() as watcher:
        await wait_until(lambda: scene.watches)

        async def ends_as_it_is_asked(self: Watcher) -> None:
            await whole_round(self)
            self.ask_again()

        with monkeypatch.context() as patched:
            patched.setattr(Watcher, "_round", ends_as_it_is_asked)
            scene.watch.play(answer(7, "a"), answer(8, "a"))
            await wait_until(lambda: len(scene.watch.asked) == 3)
        scene.watch.play(answer(9, "a"))
        await wait_until(lambda: len(scene.watch.asked) == 4)
        watcher.ask_again()
        await wait_until(lambda: len(scene.watch.asked) == 5)

    assert scene.watch.asked[-1] == 0


async def test_many_instances_are_prepared_before_they_are_published(scene: Scene) -> None:
    """What listeners would do in one turn of the loop is done in many."""
    names = [f"i{number:05}" for number in range(MANY)]
    story: list[str] = []

    def prepare(snapshot: Snapshot) -> Iterator[None]:
        for _ in range(3):
            story.append(f"prepare {len(snapshot.instances)}")
            yield

    scene.catalog.prepare_with(prepare)
    scene.catalog.subscribe(lambda snapshot: story.append(f"publish {len(snapshot.instances)}"))
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"), answer(8, *names))
        await wait_until(lambda: len(scene.watch.asked) == 3)

    assert story == ["publish 1", *["prepare 1000"] * 3, "publish 1000"]


async def test_of_many_instances_those_that_did_not_change_stay_the_same_objects(
    scene: Scene,
) -> None:
    names = [f"i{number:05}" for number in range(MANY)]
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, *names), answer(8, *names, "new"))
        await wait_until(lambda: len(scene.watch.asked) == 3)

    before, after = (one.instances for one in scene.published)
    assert all(one is other for one, other in zip(before, after, strict=False))
    assert len(after) == MANY + 1


async def test_it_ends_when_cancelled_and_leaves_nothing_behind(scene: Scene) -> None:
    async with scene.running():
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"))
        await wait_until(lambda: len(scene.watch.asked) == 2)

    assert scene.watch.is_closed
    assert scene.budget.take()


async def test_the_repr_is_a_window(scene: Scene) -> None:
    async with scene.running() as watcher:
        await wait_until(lambda: scene.watches)
        scene.watch.play(answer(7, "a"))
        await wait_until(scene.ids)

        assert repr(watcher) == "<Watcher web live watching>"
