"""The task that keeps one service's Snapshot fresh.

The one rule: the loop is dumb. What to ask, when, and whether to trust the answer is decided in
`core.watch`, what to publish in `core.hold`, whether the registry is there in `discovery.link`;
here those are only joined. A watcher never ends before it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from gateway.core.hold import HoldPolicy, View
from gateway.core.model import Skipped, Snapshot
from gateway.core.watch import Phase, Reading, Trouble, WatchPolicy, WatchState
from gateway.discovery.catalog import Catalog
from gateway.discovery.link import Link
from gateway.discovery.source import Answer, Source, SourceError
from gateway.threads import Pace, in_thread

_log = structlog.get_logger()

# From so many instances on, work on all of them takes longer than one turn of the loop may.
MANY = 1000
# These do not tell whether the registry is away or only this question failed.
_DOUBTFUL = frozenset({Trouble.CUT, Trouble.TIMEOUT, Trouble.NO_LEADER})


class WatchBudget:
    """How many watches may hold a long-lived connection at the same time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def take(self) -> bool:
        """Take a place if there is one."""
        if self._used >= self._limit:
            return False
        self._used += 1
        return True

    def give_back(self) -> None:
        """Give a place back."""
        self._used -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherPolicy:
    """How a watcher asks; the rest is in WatchPolicy and HoldPolicy.

    `wait_s` is what the source promises as the longest wait of a blocking question. After
    `watch_failures` troubles that look like a limit on connections, while the registry is there, a
    watcher polls every `poll_s` instead, and tries to watch again after `polls_before_watching`.
    """

    wait_s: float = 30.0
    poll_s: float = 5.0
    watch_failures: int = 3
    polls_before_watching: int = 12
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    hold: HoldPolicy = field(default_factory=HoldPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherContext:
    """What all watchers of one registry share.

    `open_watch` makes a source with a connection of its own, which the watcher closes; `poll` is
    the source that all share.
    """

    registry: str
    catalog: Catalog
    link: Link
    poll: Source
    open_watch: Callable[[], Source]
    budget: WatchBudget
    clock: Callable[[], float]
    random: Callable[[], float]
    policy: WatcherPolicy = field(default_factory=WatcherPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatcherStatus:
    """How one watcher is, for whoever shows it: counts are since it started."""

    phase: Phase
    is_polling: bool
    asked_count: int
    answer_count: int
    error_count: int
    trouble: Trouble | None


class Watcher:
    """Follows one service until cancelled; the only writer of its entry in the catalog.

    `has_seen` says that the registry has listed an instance in this run. `denial` says in words why
    it tells nothing, None while it does.
    """

    def __init__(self, service: str, context: WatcherContext) -> None:
        self.service = service
        self._context = context
        self._policy = context.policy
        self._state = WatchState()
        entry = context.catalog.get(service)
        self._view = View(entry.snapshot.instances if entry is not None else ())
        self._index = 0
        self._confirmed_at_s: float | None = None
        self._watch: Source | None = None
        self._polls_left = 0
        self._release: asyncio.TimerHandle | None = None
        self._asked_count = self._answer_count = self._error_count = 0
        self._trouble: Trouble | None = None
        self._skipped: tuple[Skipped, ...] = ()
        self._skipped_count = 0
        self._patience: asyncio.Timeout | None = None
        self._is_asked_again = False
        self.has_seen = False
        self.denial: str | None = None
        self._is_told = False  # that it has trouble which is not the registry's as a whole

    def __repr__(self) -> str:
        mode = "polling" if self._watch is None else "watching"
        return f"<Watcher {self.service} {self._state.phase.value} {mode}>"

    def status(self) -> WatcherStatus:
        """Tell how it is now."""
        return WatcherStatus(
            phase=self._state.phase,
            is_polling=self._watch is None,
            asked_count=self._asked_count,
            answer_count=self._answer_count,
            error_count=self._error_count,
            trouble=self._trouble,
        )

    async def run(self) -> None:
        """Keep the service fresh until cancelled; whatever goes wrong is logged and tried again."""
        try:
            while True:
                try:
                    async with asyncio.timeout(None) as self._patience:
                        await self._round_or_recover()
                except TimeoutError:
                    self._begin_anew()
                if self._is_asked_again:  # in the very turn in which the round ended
                    self._begin_anew()
        finally:
            self._disarm()
            await self._leave_watch()

    def ask_again(self) -> None:
        """End the question in flight, or the pause, and ask from index 0: for another token."""
        if self._patience is not None and not self._is_asked_again:
            self._is_asked_again = True
            self._patience.reschedule(asyncio.get_running_loop().time())

    def _begin_anew(self) -> None:
        self._is_asked_again = False
        self._state = self._state.parked()
        self._context.catalog.doubt(self.service)

    async def _round_or_recover(self) -> None:
        try:
            await self._round()
        except Exception as error:  # noqa: BLE001 - logged; one that died would be blind for ever
            _log.exception("watcher_failed", service=self.service)
            await self._recover(SourceError(Trouble.INTERNAL, repr(error)))

    async def _round(self) -> None:
        """Ask once, and wait for as long as the rules say."""
        if not self._context.link.is_up:
            self._state = self._state.parked()
            self._context.catalog.doubt(self.service)
            await self._context.link.wait_until_up()
        self._state, delay_s = self._state.asking(self._context.clock(), self._policy.watch)
        await asyncio.sleep(delay_s)
        try:
            delay_s = await self._ask()
        except SourceError as error:
            await self._recover(error)
        else:
            await asyncio.sleep(delay_s)

    async def _ask(self) -> float:
        """Ask and publish what comes; return how long to wait. Raises SourceError."""
        watch = self._enter_watch()
        self._asked_count += 1
        if watch is None:
            self._polls_left -= 1
            await self._query(self._context.poll, 0)
            return self._policy.poll_s * (0.9 + 0.2 * self._context.random())
        if self._state.index > 0:
            return await self._query(watch, self._state.index)
        async with self._context.link.reads:
            return await self._query(watch, 0)

    async def _query(self, source: Source, index: int) -> float:
        sent_at_s = self._context.clock()
        answer = await source.query(self.service, index=index)
        elapsed_s = self._context.clock() - sent_at_s
        reading = Reading(
            index=answer.index,
            is_empty=not answer.instances,
            woke=index > 0 and elapsed_s < self._policy.wait_s,
            was_blocking=index > 0,
            is_authoritative=answer.has_leader and not answer.is_filtered,
            is_filtered=answer.is_filtered,
        )
        return await self._apply(answer, reading, sent_at_s)

    async def _apply(self, answer: Answer, reading: Reading, sent_at_s: float) -> float:
        """Believe of an answer what is to be believed, and publish it."""
        self._answer_count += 1
        self.denial = None
        self.has_seen = self.has_seen or bool(answer.instances)
        self._trouble = Trouble.DENIED if reading.is_filtered else None
        self._is_told = False
        self._note_skipped(answer)
        self._view = await self._view_after(answer, reading)
        if reading.is_authoritative:
            self._confirmed_at_s = sent_at_s
        self._index = answer.index
        if len(self._view.instances) >= MANY:
            for _ in self._context.catalog.prepare(self._snapshot()):
                await asyncio.sleep(0)
        changed = self._publish(sent_at_s if reading.is_authoritative else None)
        self._state, delay_s = self._state.answered(
            reading, changed=changed, policy=self._policy.watch
        )
        self._arm()
        return delay_s

    async def _view_after(self, answer: Answer, reading: Reading) -> View:
        """Join an answer to what is known; many instances are compared in a thread."""
        self._disarm()
        while True:
            is_up = self._context.link.is_up
            join: Callable[[], View] = partial(
                self._view.after,
                answer.instances,
                # What was asked before the registry got lost may be answered by what is left of it.
                trusted=is_up and self._state.trusts(reading),
                now_s=self._context.clock(),
                policy=self._policy.hold,
            )
            if len(answer.instances) + len(self._view.instances) < MANY:
                return join()
            view = await in_thread(partial(_without_pace, join), name="registry answer")
            if self._context.link.is_up is is_up:
                return view

    def _publish(self, confirmed_at_s: float | None) -> bool:
        return self._context.catalog.publish(self._snapshot(), confirmed_at_s=confirmed_at_s)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            service=self.service,
            instances=self._view.instances,
            source=self._context.registry,
            index=self._index,
            held_until_s=self._view.next_release_s,
            skipped=self._skipped,
            skipped_count=self._skipped_count,
        )

    async def _recover(self, error: SourceError) -> None:
        """Take an error, find out whether it is the registry's or only this watch's, and wait."""
        self._error_count += 1
        self._trouble = error.trouble
        self.denial = error.detail if error.trouble is Trouble.DENIED else None
        phase = self._state.phase
        self._state, delay_s = self._state.errored(
            error.trouble,
            chance=self._context.random(),
            policy=self._policy.watch,
            retry_after_s=error.retry_after_s,
        )
        self._context.catalog.doubt(self.service)
        if error.trouble is Trouble.UNREACHABLE:
            self._context.link.lost(error.detail)
        elif error.trouble in _DOUBTFUL:
            await self._context.link.verify()
        if not self._context.link.is_up:
            return  # the next round parks
        if self._state.phase is not phase or not self._is_told:
            self._is_told = True
            _log.warning(
                "watch_failed",
                service=self.service,
                phase=self._state.phase.value,
                detail=error.detail,
            )
        if self._state.failed_watches >= self._policy.watch_failures and self._watch is not None:
            await self._leave_watch()
            self._polls_left = self._policy.polls_before_watching
        await asyncio.sleep(delay_s)

    def _note_skipped(self, answer: Answer) -> None:
        if (answer.skipped, answer.skipped_count) != (self._skipped, self._skipped_count):
            _log.warning(
                "entries_skipped",
                service=self.service,
                count=answer.skipped_count,
                entries=[str(one) for one in answer.skipped],
            )
        self._skipped, self._skipped_count = answer.skipped, answer.skipped_count

    def _enter_watch(self) -> Source | None:
        """Give the source to watch with; None when this question is to be a poll."""
        if self._watch is None and self._polls_left <= 0 and self._context.budget.take():
            self._watch = self._context.open_watch()
        return self._watch

    async def _leave_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            self._context.budget.give_back()
            await watch.aclose()

    def _arm(self) -> None:
        """See to it that held instances are let go also when no further answer comes."""
        self._disarm()
        release_s = self._view.next_release_s
        if release_s is not None:
            delay_s = max(0.0, release_s - self._context.clock())
            self._release = asyncio.get_running_loop().call_later(delay_s, self._let_go)

    def _disarm(self) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None

    def _let_go(self) -> None:
        """Let go of held instances whose time is over.

        Not while the registry cannot be asked: then the last view stays, however long it takes, and
        the next answer decides.
        """
        if self._state.phase not in {Phase.LIVE, Phase.ABSENT}:
            return
        self._view = self._view.released(self._context.clock())
        self._publish(self._confirmed_at_s)
        self._arm()


def _without_pace(join: Callable[[], View], _pace: Pace) -> View:
    return join()
