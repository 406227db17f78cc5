"""Whether the registry as a whole can be reached, found out once for all watchers.

The one rule: while it is away, one probe asks for it, and everybody else waits for one event. That
a connection broke off is not yet an outage (it may be a limit on connections, or a leader being
elected), so it is verified by a probe; that no connection can be made is one at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import structlog

from gateway.core.registry import RegistryHealth
from gateway.core.watch import WatchPolicy
from gateway.discovery.source import SourceError

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPolicy:
    """How the link is watched.

    While up, a probe every `heartbeat_s` plus at most `heartbeat_spread_s`; while down, a probe
    with the back-off of `retry`. When it comes back, watchers resume spread over `resync_s`, and
    never more than `resync_parallel` of them read at once.
    """

    heartbeat_s: float = 16.0
    heartbeat_spread_s: float = 4.0
    resync_s: float = 1.0
    resync_parallel: int = 8
    retry: WatchPolicy = field(default_factory=WatchPolicy)


class Link:
    """Up or down, with one probe for the process.

        unknown ──probe ok──> up ──probe fails, no connection──> down ──probe ok──> up

    `run` is the only place that probes and that makes the link go up; watchers only ask for it.
    `address` is named in the log. `on_lost` is called each time it goes down. `reads` bounds how
    many watchers read at once.
    """

    def __init__(  # noqa: PLR0913 -- they are all different things
        self,
        probe: Callable[[], Awaitable[None]],
        *,
        address: str | None = None,
        clock: Callable[[], float],
        random: Callable[[], float],
        on_lost: Callable[[], None] = lambda: None,
        policy: LinkPolicy | None = None,
    ) -> None:
        self._probe = probe
        self._on_lost = on_lost
        self._clock = clock
        self._random = random
        self._policy = policy or LinkPolicy()
        self._health = RegistryHealth(
            name="consul", reachable=None, since_s=clock(), address=address
        )
        self._log = _log.bind(registry=self._health.name, address=address)
        self._up = asyncio.Event()
        self._wanted = asyncio.Event()
        self._verdict: asyncio.Event | None = None
        self.reads = asyncio.Semaphore(self._policy.resync_parallel)
        self.probe_count = 0

    def __repr__(self) -> str:
        state = {None: "unknown", True: "up", False: "down"}[self._health.reachable]
        return f"<Link {state} probes={self.probe_count} detail={self._health.detail!r}>"

    @property
    def is_up(self) -> bool:
        """Whether the last word was that the registry answers and has a leader."""
        return self._up.is_set()

    def health(self) -> RegistryHealth:
        """Tell how the registry is."""
        return self._health

    async def wait_until_up(self) -> None:
        """Park until the registry is there; after an outage, come back spread over a while."""
        was_there = self._health.reachable is not None
        await self._up.wait()
        if was_there:
            await asyncio.sleep(self._random() * self._policy.resync_s)

    def lost(self, detail: str) -> None:
        """Take from a watcher that no connection could be made: down at once."""
        self._go_down(detail)
        self._wanted.set()

    async def verify(self) -> bool:
        """Wait for the outcome of a probe that starts from now on; all who doubt share one."""
        if not self.is_up:
            return False
        if self._verdict is None:
            self._verdict = asyncio.Event()
        verdict = self._verdict
        self._wanted.set()
        await verdict.wait()
        return self.is_up

    async def run(self) -> None:
        """Probe for as long as the process lives: seldom while up, with back-off while down."""
        failures = 0
        while True:
            self._wanted.clear()
            asked, self._verdict = self._verdict, None
            is_there = await self._ask()
            if asked is not None:
                asked.set()
            failures = 0 if is_there else failures + 1
            if is_there:
                await self._rest(self._heartbeat_s())
            else:
                if self._verdict is not None:  # asked during the probe; it need not wait longer
                    self._verdict.set()
                await asyncio.sleep(self._policy.retry.backoff_s(failures, self._random()))

    async def _ask(self) -> bool:
        self.probe_count += 1
        try:
            await self._probe()
        except SourceError as error:
            self._go_down(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - logged; must not end the only task that probes
            _log.exception("probe_failed", registry=self._health.name)
            self._go_down(f"internal: {error!r}")
            return False
        self._go_up()
        return True

    async def _rest(self, longest_s: float) -> None:
        """Wait for the next heartbeat, or until somebody wants to know earlier."""
        try:
            async with asyncio.timeout(longest_s):
                await self._wanted.wait()
        except TimeoutError:
            return

    def _heartbeat_s(self) -> float:
        return self._policy.heartbeat_s + self._random() * self._policy.heartbeat_spread_s

    def _go_up(self) -> None:
        if not self.is_up:
            outage_s = self._clock() - self._health.since_s
            self._change(reachable=True, detail=None)
            self._log.info("registry_found", after_s=round(outage_s, 3))
            self._up.set()

    def _go_down(self, detail: str) -> None:
        if self._health.reachable is not False:
            self._change(reachable=False, detail=detail)
            self._log.warning("registry_lost", detail=detail)
            self._up.clear()
            self._on_lost()

    def _change(self, *, reachable: bool, detail: str | None) -> None:
        self._health = replace(
            self._health, reachable=reachable, since_s=self._clock(), detail=detail
        )
