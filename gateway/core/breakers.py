"""What the Breakers of one service decide together: how many may open, and what if all are.

A Breaker knows its own instance only. Two things take the view of all of them:

- **At most a part is shut out while others can serve** (`max_open_ratio`, counted after the
  decision). Requests that are bad by themselves would otherwise shut out one instance after the
  other, and the load of many would fall on few. The cap does not hold once nobody serves: a row of
  failures at each that is left, and all of them together too long to be chance. Those of one group
  (a tier, and in it the gateway's own zone) are asked for themselves, for another group may get
  little or no traffic while they can serve. Nor does the cap hold for an instance that takes no
  connections: it carries no load anyway.
- **When all are open** the service has an outage. Then no Breaker waits for its own time: one trial
  a second is let through for the service as a whole, to whoever had none for the longest time
  (`probe`), or requests go on as if there were no Breakers (`route_anyway`). The first success ends
  the outage, and the others get their trials at once: what was learned in it does not hold on.

So too for a request that all others have failed: one a second may try an instance that was gone,
for that is what instances are which restart one after the other.

An instance that rests because it asked for it (`Retry-After`) is woken before there is an outage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from gateway.core.breaker import TRIAL_EVERY_S, Breaker, Permit
from gateway.core.policy import BreakerPolicy, WhenAllOpen


class _HasBreaker(Protocol):
    @property
    def breaker(self) -> Breaker: ...


M = TypeVar("M", bound=_HasBreaker)


class Breakers:
    """The Breakers of one service; the Company of each of them.

    `is_outage` says that all of them are shut. Those that are `watched` count; a Breaker whose
    instance may get no traffic does not.
    """

    __slots__ = (
        "_group_of",
        "_policy",
        "_shut_count",
        "_trial_at_s",
        "_watched",
        "holds_trials",
        "is_outage",
    )

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._watched: tuple[Breaker, ...] = ()
        self._group_of: dict[Breaker, tuple[Breaker, ...]] = {}
        self._shut_count = 0
        self._trial_at_s = float("-inf")
        self.is_outage = False
        self.holds_trials = False

    def __repr__(self) -> str:
        outage = ", outage" if self.is_outage else ""
        return f"<Breakers {self._shut_count} of {len(self._watched)} shut{outage}>"

    def make(self) -> Breaker:
        """Make the Breaker of a new instance."""
        return Breaker(self._policy, self)

    def adopt(self, policy: BreakerPolicy) -> None:
        """Follow another policy from now on; each Breaker is told by whoever has it."""
        self._policy = policy
        self._count()

    def watch(self, *groups: Iterable[Breaker], now_s: float) -> None:
        """Count these from now on, and no others; each group is asked for itself."""
        of_groups = [tuple(group) for group in groups]
        self._group_of = {breaker: group for group in of_groups for breaker in group}
        self._watched = tuple(self._group_of)
        self._count()
        if self.is_outage:
            self._wake_all(now_s)

    def may_open(self, breaker: Breaker, *, was_reached: bool) -> bool:
        """Decide whether one that had enough may open."""
        return not was_reached or self._can_spare(breaker) or self._nobody_serves(breaker)

    def is_only_one(self, breaker: Breaker) -> bool:
        """Return whether no other instance that may get traffic takes connections."""
        others = (one for one in self._watched if one is not breaker)
        return breaker in self._group_of and not any(one.takes_connections for one in others)

    def may_rest(self, breaker: Breaker) -> bool:
        """Decide whether one that asked for it may be left alone."""
        return self._can_spare(breaker) and self._others_serve(breaker)

    def changed(self, now_s: float) -> None:
        """Hear that one of them opened or closed."""
        was_outage = self.is_outage
        self._count()
        if was_outage and not self.is_outage:
            for breaker in self._watched:
                breaker.hurry(now_s)
        elif self.is_outage and not was_outage:
            if not any(breaker.may_be_back(now_s) for breaker in self._watched):
                self._trial_at_s = now_s + TRIAL_EVERY_S
            self._wake_all(now_s)

    def last_resort(self, members: Sequence[M], now_s: float) -> tuple[M, Permit] | None:
        """Let a trial through because nobody else is left to ask, if one is due; None if not.

        It goes to whoever had none for the longest time; where others serve but have failed this
        request, only to one that may be back.
        """
        if now_s < self._trial_at_s:
            return None
        if not self.holds_trials:
            members = [one for one in members if one.breaker.may_be_back(now_s)]
        for member in sorted(members, key=lambda one: one.breaker.tried_at_s):
            permit = member.breaker.admit_trial(now_s)
            if permit is not None:
                self._trial_at_s = now_s + TRIAL_EVERY_S
                return member, permit
        return None

    @property
    def slow_after_s(self) -> float | None:
        """When an answer counts as slow, None for never."""
        return self._policy.slow_after_s

    @property
    def routes_anyway(self) -> bool:
        """Whether all are shut, and requests are to go on all the same."""
        return self.is_outage and not self.holds_trials

    def retry_at_s(self, now_s: float) -> float | None:
        """Tell when the next attempt may be possible, None if there is nobody to try."""
        if self.holds_trials:
            return max(now_s, self._trial_at_s)
        return min((one.retry_at_s(now_s) for one in self._watched), default=None)

    def _can_spare(self, breaker: Breaker) -> bool:
        """Tell whether one more may be shut out; one that is not watched is missed by nobody."""
        shut_then = self._shut_count + 1
        is_few = shut_then <= self._policy.max_open_ratio * len(self._watched)
        return is_few or breaker not in self._group_of

    def _nobody_serves(self, breaker: Breaker) -> bool:
        """Tell whether all that are left of its group fail, and for longer than by chance.

        Of instances that fail every second request, one has five failures in a row all the time;
        twenty of all together, and no success between, come once in a million requests. An only
        instance is judged like any other, for its clients are better off with a fast answer; but
        not for closing connections (`is_only_one`), for that is as fast.
        """
        policy = self._policy
        rows = [one.counted_in_a_row for one in self._group_of[breaker] if not one.is_shut]
        row = min(policy.consecutive_failures, policy.min_requests)
        return len(self._watched) == 1 or (min(rows) >= row and sum(rows) >= policy.min_requests)

    def _others_serve(self, breaker: Breaker) -> bool:
        return any(
            one is not breaker and not (one.is_shut or one.is_withheld) for one in self._watched
        )

    def _wake_all(self, now_s: float) -> None:
        resting = [one for one in self._watched if one.is_resting]
        if resting:
            self.is_outage = False  # nobody has recovered, so nobody is hurried
            for breaker in resting:
                breaker.wake(now_s)

    def _count(self) -> None:
        self._shut_count = sum(breaker.is_shut for breaker in self._watched)
        self.is_outage = 0 < self._shut_count == len(self._watched)
        self.holds_trials = self.is_outage and self._policy.when_all_open is WhenAllOpen.PROBE
