"""The rules of following a registry, as a value: what to ask next, when, and what to believe.

A watcher is a dumb loop around this value. It asks (`asking`), and tells what came of it
(`answered`, `errored`, `parked`); it gets back the next value and how long to wait. Nothing here
knows a clock, a socket or chance: instants and random numbers come in as arguments.

The one rule: an index is only ever taken from a successful answer, and everything that could have
happened behind our back starts again from index 0 (Consul, "Blocking Queries"; an error carries
`X-Consul-Index: 1`, and an index from before a restart blocks for the whole wait).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

_MAX_DOUBLINGS = 16


class Phase(Enum):
    """Where a watch is; see WatchState for the arrows."""

    INIT = "init"
    SYNCING = "syncing"
    LIVE = "live"
    ABSENT = "absent"
    DEGRADED = "degraded"
    DENIED = "denied"


class Trouble(Enum):
    """The ways in which a question to a registry fails.

    unreachable: no connection. timeout: no answer in time. cut: the connection broke off.
    no_leader: the registry cannot decide anything now. denied: our token may not. limited: too much
    is asked of it. bad: our question is wrong. protocol: what answered is not a registry, for
    example the error page of a load balancer. too_large: the answer is larger than any that is
    read. internal: a fault of our own.
    """

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    CUT = "cut"
    NO_LEADER = "no_leader"
    DENIED = "denied"
    LIMITED = "limited"
    BAD = "bad"
    PROTOCOL = "protocol"
    TOO_LARGE = "too_large"
    INTERNAL = "internal"


# What only an operator can mend is asked slowly.
SLOW_TROUBLES = frozenset({Trouble.DENIED, Trouble.BAD, Trouble.TOO_LARGE})
# These are what a limit on long-lived connections looks like; an election, for one, is not.
_AGAINST_THE_WATCH = frozenset({Trouble.CUT, Trouble.TIMEOUT, Trouble.LIMITED})


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPolicy:
    """How patient a watch is.

    Errors: full jitter between 0 and `backoff_min_s` * 2^n, at most `backoff_max_s`; troubles that
    only an operator can mend wait between `slow_min_s` and `slow_max_s`. Noise: after more than
    `quiet_wakes` wake-ups in a row without a change, `noise_step_s` * 2^n, at most `noise_max_s`.
    Questions: at most `burst` at once and `rate_per_s` over time, whatever the reason.
    """

    backoff_min_s: float = 0.25
    backoff_max_s: float = 15.0
    slow_min_s: float = 2.0
    slow_max_s: float = 30.0
    retry_after_max_s: float = 60.0
    quiet_wakes: int = 2
    noise_step_s: float = 0.05
    noise_max_s: float = 2.0
    no_index_s: float = 1.0
    burst: int = 8
    rate_per_s: float = 10.0

    def backoff_s(self, failures: int, chance: float) -> float:
        """How long to wait after so many failures in a row; `chance` is in [0, 1)."""
        return chance * min(self.backoff_max_s, _doubled(self.backoff_min_s, failures - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a successful answer says about itself.

    `index` is 0 where it has none. `woke` is true when a blocking question came back before its
    wait was over. `is_authoritative` is false when the answer itself admits that it may be wrong
    (no leader known) or incomplete; `is_filtered` when access rules took something away.
    """

    index: int
    is_empty: bool
    woke: bool = False
    was_blocking: bool = False
    is_authoritative: bool = True
    is_filtered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """All that a watch remembers between two questions.

        init ──asking──> syncing ──answered, lists instances──> live
                            │                                    ▲ │
                            └──answered, lists nothing──> absent ┘─┘ (each answer decides anew)

        any ──errored, parked──> degraded ──answered──> live | absent
        any ──errored(denied), filtered answer──> denied ──answered──> live | absent

    `index` is that of the last successful answer, 0 after anything else. `is_settled` is true when
    the last event was an answer that went forward: only then is the next one trusted, because
    after an error, a reset or a cold start a registry may have lost what it knew and still answer
    with a clean, empty 200. `failed_watches` counts the troubles since a blocking question was last
    answered that speak for a limit on long-lived connections.

    Laws (tests/core/test_watch_properties.py): the index is never negative, every delay is bounded
    by the policy, and after any history two answers in a row are enough to be trusted again.
    """

    phase: Phase = Phase.INIT
    index: int = 0
    is_settled: bool = False
    failures: int = 0
    failed_watches: int = 0
    unchanged_wakes: int = 0
    tokens: float | None = None
    filled_at_s: float = 0.0

    def asking(self, now_s: float, policy: WatchPolicy) -> tuple[WatchState, float]:
        """Take one token for the next question; tell how long to wait before it is sent."""
        tokens = float(policy.burst)
        if self.tokens is not None:
            passed_s = max(0.0, now_s - self.filled_at_s)
            tokens = min(tokens, self.tokens + passed_s * policy.rate_per_s)
        delay_s = max(0.0, (1.0 - tokens) / policy.rate_per_s)
        phase = Phase.SYNCING if self.phase is Phase.INIT else self.phase
        return replace(self, phase=phase, tokens=tokens - 1.0, filled_at_s=now_s), delay_s

    def trusts(self, reading: Reading) -> bool:
        """Whether absence from this answer may be believed."""
        return self.is_settled and reading.is_authoritative and reading.index >= self.index

    def answered(
        self, reading: Reading, *, changed: bool, policy: WatchPolicy
    ) -> tuple[WatchState, float]:
        """Take a successful answer; `changed` tells whether it made any difference.

        An index that went back means another history: a restored or restarted registry, or two of
        them behind one address. The next question starts from 0, and neither this answer nor the
        next one is trusted.
        """
        went_back = reading.index < self.index
        wakes = self.unchanged_wakes + 1 if reading.woke and not changed else 0
        state = replace(
            self,
            phase=_phase_after(reading),
            index=0 if went_back else max(0, reading.index),
            is_settled=reading.is_authoritative and not went_back,
            failures=0,
            failed_watches=0 if reading.was_blocking else self.failed_watches,
            unchanged_wakes=wakes,
        )
        if reading.index <= 0:
            return state, policy.no_index_s
        noise = wakes - policy.quiet_wakes
        if noise <= 0:
            return state, 0.0
        return state, min(policy.noise_max_s, _doubled(policy.noise_step_s, noise - 1))

    def errored(
        self,
        trouble: Trouble,
        *,
        chance: float,
        policy: WatchPolicy,
        retry_after_s: float | None = None,
    ) -> tuple[WatchState, float]:
        """Take a failure; `chance` in [0, 1) is the jitter, `retry_after_s` the registry's wish."""
        failures = self.failures + 1
        denied = trouble is Trouble.DENIED
        state = replace(
            self.parked(),
            phase=Phase.DENIED if denied else Phase.DEGRADED,
            failures=failures,
            failed_watches=self.failed_watches + (trouble in _AGAINST_THE_WATCH),
        )
        if trouble in SLOW_TROUBLES:
            spread_s = min(policy.slow_max_s - policy.slow_min_s, float(_doubled(2.0, failures)))
            return state, policy.slow_min_s + chance * spread_s
        wish_s = min(max(0.0, retry_after_s or 0.0), policy.retry_after_max_s)
        return state, wish_s + policy.backoff_s(failures, chance)

    def parked(self) -> WatchState:
        """Take that the registry as a whole is away: nothing was asked, all may have changed.

        Troubles so far were the registry's then, and do not speak against this watch.
        """
        return replace(
            self,
            phase=Phase.DENIED if self.phase is Phase.DENIED else Phase.DEGRADED,
            index=0,
            is_settled=False,
            failed_watches=0,
            unchanged_wakes=0,
        )


def _phase_after(reading: Reading) -> Phase:
    if reading.is_filtered:
        return Phase.DENIED
    return Phase.ABSENT if reading.is_empty else Phase.LIVE


def _doubled(start: float, times: int) -> float:
    return start * 2.0 ** min(times, _MAX_DOUBLINGS)
