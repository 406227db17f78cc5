"""A Breaker decides whether one instance may be tried; every attempt needs a Permit from it.

                     enough failures                      open_for has passed
          ┌────────┐ ───────────────▶ ┌──────┐ ─────────────────────────────▶ ┌───────────┐
          │ closed │                  │ open │                                │ half-open │
          └────────┘                  └──────┘ ◀───────────────────────────── └───────────┘
               ▲                                      the trial failed              │
               └────────────────────────────────────────────────────────────────────┘
                                         the trial succeeded

Half-open lets exactly one trial out at a time; only where all of a service are shut another one
may follow a second later, for a trial may be an upload that takes its time. A Permit is reported
back exactly once: succeeded, slowed, failed, or released when nobody is to blame. Each change of
state starts a new epoch, and a Permit of an older epoch is ignored: what was sent before an outage
says nothing about the instance after.

A Breaker opens only if its Company lets it (`gateway.core.breakers`): the Breakers of one service
must not shut out more than a part of it while that part could serve. One that had enough and may
not open is *withheld*: it stays closed, and says so until its next success.

A client can bring a failure about at an instance that is well: its head is too large, it asks for
what takes too long, or for what is answered with 503. Such failures come with their client while
the instance serves others (`gateway.core.doubts`), and those of one client alone count for
nothing: neither for a row, nor for a share, nor as the end of a trial. One counts for no more than
all others together, and one more; or for all, once a connect has failed. While nobody else is
served there is nothing to doubt, and they count like any other.

By closing connections an instance answers at once, if badly. So failures of that kind never shut
out the only instance that takes connections, and those that are not known to meet several clients
shut out none that cannot be spared.

There is no timer: open turns into half-open when somebody asks.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NewType, Protocol

from gateway.core.doubts import Asker, Doubts
from gateway.core.failure import GONE, UNREACHED
from gateway.core.policy import BreakerPolicy

Permit = NewType("Permit", int)

SLOW_ANSWERS: Final = "slow_answers"
RETRY_AFTER: Final = "retry_after"
GIVEN_UP: Final = "given_up"
TRIAL_EVERY_S: Final = 1.0
_NEVER: Final = float("-inf")
_BACK_AFTER_S: Final = 0.25
_LONGEST_DOUBLING = 30


class BreakerState(Enum):
    """The three states of the drawing above."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Company(Protocol):
    """The Breakers of one service together, as one of them sees it."""

    @property
    def holds_trials(self) -> bool:
        """Whether no Breaker gives trials by itself, because the service as a whole does."""
        ...

    def may_open(self, breaker: Breaker, *, was_reached: bool) -> bool:
        """Decide whether this one may open; `was_reached` is False if it took no connection."""
        ...

    def may_rest(self, breaker: Breaker) -> bool:
        """Decide whether this one can be spared for a while."""
        ...

    def is_only_one(self, breaker: Breaker) -> bool:
        """Return whether no other instance of the service takes connections."""
        ...

    def changed(self, now_s: float) -> None:
        """Hear that one of them opened or closed."""
        ...


class _Alone:
    """The Company of a Breaker that has none."""

    holds_trials = False

    def may_open(self, breaker: Breaker, *, was_reached: bool) -> bool:
        del breaker, was_reached
        return True

    def may_rest(self, breaker: Breaker) -> bool:
        del breaker
        return False

    def is_only_one(self, breaker: Breaker) -> bool:
        del breaker
        return False

    def changed(self, now_s: float) -> None:
        del now_s


ALONE: Final = _Alone()


class _Window:
    """Counts what goes wrong within a stretch of time; it begins with what went wrong.

    So a success costs nothing but a count that somebody else keeps.
    """

    __slots__ = ("_ended_before", "_from_s", "_wrong_before", "doubts")

    def __init__(self) -> None:
        self._from_s = _NEVER
        self._ended_before = 0
        self._wrong_before = 0
        self.doubts = Doubts()

    def take(self, policy: BreakerPolicy, now_s: float, all_ended: int, all_wrong: int) -> None:
        """Take note of one that went wrong; the counts are of all, and all that went wrong."""
        if now_s - self._from_s > policy.window_s:
            self._from_s = now_s
            self._ended_before = all_ended - 1
            self._wrong_before = all_wrong - 1
            self.doubts = Doubts()

    def is_full(
        self, policy: BreakerPolicy, counts: tuple[int, int, float], apart: int = 0
    ) -> bool:
        """Return whether `min_requests` ended within the window, and the share went wrong.

        `counts` are all that ended, all that went wrong, and the share. `apart` is how many of
        those that went wrong are left out.
        """
        all_ended, all_wrong, share = counts
        ended = all_ended - self._ended_before - apart
        wrong = all_wrong - self._wrong_before - apart
        return ended >= policy.min_requests and wrong >= share * ended


class Breaker:
    """The Breaker of one instance. All times are monotonic seconds.

    `changed_at_s` is when it last opened or closed, None if it never did; `last_failure` why, or
    the last failure that it heard of. `tried_at_s` is when it last let a trial out; `has_trial_out`
    says that one is under way.
    """

    __slots__ = (
        "_company",
        "_consecutive",
        "_ended",
        "_epoch",
        "_failed",
        "_failures",
        "_given_up",
        "_is_withheld",
        "_limits",
        "_open_until_s",
        "_opened_times",
        "_policy",
        "_row",
        "_shut_since_s",
        "_silent",
        "_silent_since",
        "_slow",
        "_slowness",
        "changed_at_s",
        "has_trial_out",
        "is_resting",
        "last_failure",
        "tried_at_s",
    )

    def __init__(self, policy: BreakerPolicy, company: Company = ALONE) -> None:
        self._policy = policy
        self._company = company
        self._epoch = Permit(0)
        self._open_until_s: float | None = None
        self._opened_times = 0
        self.has_trial_out = False
        self._is_withheld = False
        self._consecutive = 0
        self._row = Doubts()
        self._ended = 0
        self._failed = 0
        self._slow = 0
        self._silent = 0
        self._silent_since = 0
        self._given_up = Doubts()
        self._shut_since_s: float | None = None
        self._failures = _Window()
        self._slowness = _Window()
        self._limits = _Window()  # that it answered with 429
        self.is_resting = False
        self.changed_at_s: float | None = None
        self.last_failure: str | None = None
        self.tried_at_s = _NEVER

    def __repr__(self) -> str:
        state = "closed" if self._open_until_s is None else f"open until {self._open_until_s:.1f}"
        withheld = ", withheld" if self.is_withheld else ""
        return f"<Breaker {state}{withheld}, {self._consecutive} in a row, epoch {self._epoch}>"

    def state(self, now_s: float) -> BreakerState:
        """Tell the state as it is now; asking changes nothing."""
        if self._open_until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._open_until_s else BreakerState.HALF_OPEN

    @property
    def is_shut(self) -> bool:
        """Whether the instance gets no more than trials: open, or half-open."""
        return self._open_until_s is not None

    @property
    def is_withheld(self) -> bool:
        """Whether it had enough, and stays closed only because too many others are shut out."""
        return self._is_withheld and self._consecutive > 0

    @property
    def is_gone(self) -> bool:
        """Whether it is shut because nobody was there: whoever restarts is back before long."""
        return self._open_until_s is not None and self.last_failure in GONE

    def may_be_back(self, now_s: float) -> bool:
        """Tell whether one that was gone is worth a trial ahead of its time."""
        if not self.is_gone or self.has_trial_out or self.changed_at_s is None:
            return False
        return now_s - max(self.changed_at_s, self.tried_at_s) >= _BACK_AFTER_S

    @property
    def failures_in_a_row(self) -> int:
        """How many failures there were since the last success or change."""
        return self._consecutive

    @property
    def ended_count(self) -> int:
        """How many of its requests ended well or badly since the instance is known."""
        return self._ended

    @property
    def counted_in_a_row(self) -> int:
        """How many of these count."""
        return self._consecutive and self._consecutive - self._row.doubted

    @property
    def takes_connections(self) -> bool:
        """Whether it is not shut, or shut for another reason than that nobody could connect."""
        return self._open_until_s is None or self.last_failure not in UNREACHED

    def adopt(self, policy: BreakerPolicy) -> None:
        """Follow another policy from now on; the state stays."""
        self._policy = policy

    def would_admit(self, now_s: float) -> bool:
        """Tell whether admit() would give a Permit now."""
        return self._open_until_s is None or self._gives_trial(now_s)

    def admit(self, now_s: float) -> Permit | None:
        """Give a Permit for one attempt, or None when the instance is to be left alone."""
        if self._open_until_s is not None:
            if not self._gives_trial(now_s):
                return None
            self.has_trial_out = True
            self.tried_at_s = now_s
        return self._epoch

    def admit_trial(self, now_s: float) -> Permit | None:
        """Give a Permit for a trial ahead of its time; None if it is closed, or had one just now.

        One that is out for longer than a second does not keep the next one from finding out.
        """
        has_new_one_out = self.has_trial_out and now_s - self.tried_at_s < TRIAL_EVERY_S
        if self._open_until_s is None or has_new_one_out:
            return None
        self.has_trial_out = True
        self.tried_at_s = now_s
        return self._epoch

    def admit_anyway(self) -> Permit:
        """Give a Permit whatever the state; what comes of it counts as a trial does."""
        return self._epoch

    def is_trial(self, permit: Permit) -> bool:
        """Tell whether this Permit is the trial that a half-open Breaker waits for."""
        return self.has_trial_out and permit == self._epoch

    def retry_at_s(self, now_s: float) -> float:
        """Tell when the next attempt may be possible; `now_s` itself if it is already."""
        return now_s if self._open_until_s is None else max(now_s, self._open_until_s)

    def doubts_since_s(self, now_s: float, asked_at_s: float) -> float:
        """Tell since when another client must have been served for a failure to be doubted.

        That is since the instance was asked, or within `window`; for a trial, within `window`
        before it was shut out, for since then nobody was served, but not for ever.
        """
        policy, shut_since_s = self._policy, self._shut_since_s
        since_s = now_s - policy.window_s
        if shut_since_s is not None:
            longest_ago_s = now_s - policy.max_open_for_s
            since_s = min(since_s, max(shut_since_s - policy.window_s, longest_ago_s))
        return min(asked_at_s, since_s)

    def released(self, permit: Permit) -> None:
        """Take a Permit back that says nothing about the instance."""
        if permit == self._epoch:
            self.has_trial_out = False

    def succeeded(self, permit: Permit, now_s: float) -> bool:
        """Count a success; True if this closed the Breaker."""
        if permit != self._epoch:
            return False
        self._ended += 1
        self._consecutive = 0
        if self._open_until_s is None:
            return False
        self._opened_times = 0
        self._change(now_s, open_until_s=None)
        return True

    def slowed(
        self, permit: Permit, now_s: float, *, chance: float, asker: Asker | None = None
    ) -> bool:
        """Count an answer that took longer than `slow_after_s`; True if this opened the Breaker.

        It ends a row of failures, but a trial that is as slow has not succeeded. `asker` is as for
        `failed`.
        """
        if permit != self._epoch:
            return False
        self._ended += 1
        self._slow += 1
        self._consecutive = 0
        policy, slowness = self._policy, self._slowness
        if self._open_until_s is None:
            slowness.take(policy, now_s, self._ended, self._slow)
        slowness.doubts.add(asker)
        if self._open_until_s is not None:
            return self._trial_failed(now_s, chance, slowness.doubts, asker, why=SLOW_ANSWERS)
        counts = (self._ended, self._slow, policy.slow_ratio)
        if not slowness.is_full(policy, counts, slowness.doubts.doubted):
            return False
        if not self._company.may_open(self, was_reached=True):
            return False
        self.last_failure = SLOW_ANSWERS
        return self._open_again(now_s, chance)

    def failed(  # noqa: PLR0913 -- they are all different things
        self,
        permit: Permit,
        now_s: float,
        *,
        why: str,
        chance: float,
        was_reached: bool = True,
        has_closed: bool = False,
        asker: Asker | None = None,
    ) -> bool:
        """Count a failure; True if this opened the Breaker (again), or closed it.

        `chance` in [0, 1) spreads the time to the trial, so that gateways which saw the same
        outage do not come back at the same moment. `was_reached` is False if the instance did not
        even take a connection, `has_closed` True if it took one and did not answer properly.
        `asker` is whose request it was, None for a failure that no request brings about.
        """
        if permit != self._epoch:
            return False
        if self._consecutive == 0:
            self._is_withheld = False
            self._row = Doubts()
        self._ended += 1
        self._failed += 1
        self._consecutive += 1
        self.last_failure = why
        self._row.add(asker, was_reached=was_reached, has_closed=has_closed)
        if self._open_until_s is not None:
            if has_closed and self._company.is_only_one(self):
                self._change(now_s, open_until_s=None)  # for it takes connections
                return True
            return self._trial_failed(now_s, chance, self._row, asker, why=why)
        self._failures.take(self._policy, now_s, self._ended, self._failed)
        self._failures.doubts.add(asker, was_reached=was_reached, has_closed=has_closed)
        if not self._has_had_enough():
            return False
        if not self._may_open(was_reached=was_reached):
            self._is_withheld = True
            return False
        return self._open_again(now_s, chance)

    def _may_open(self, *, was_reached: bool) -> bool:
        """Return whether one that had enough may open."""
        row, window, company = self._row, self._failures.doubts, self._company
        if not was_reached:
            return company.may_open(self, was_reached=False)
        is_enough = self._is_enough(row.not_for_the_only, window.not_for_the_only)
        if not is_enough and company.is_only_one(self):
            return False
        if not self._is_enough(row.not_beyond_need, window.not_beyond_need):
            return company.may_rest(self)
        return company.may_open(self, was_reached=True)

    def _trial_failed(
        self, now_s: float, chance: float, doubts: Doubts, asker: Asker | None, *, why: str
    ) -> bool:
        """Open again, unless the trial says nothing because it met one client alone."""
        if doubts.are_of_one(asker):
            self.has_trial_out = False
            return False
        self.last_failure = why
        return self._open_again(now_s, chance)

    def gave_up(
        self, permit: Permit, now_s: float, *, chance: float, asker: Asker | None = None
    ) -> bool:
        """Hear that nobody waited any longer for an answer; True if this opened the Breaker.

        That is what becomes of an attempt whose hedge was faster. It may be chance, but
        `min_requests` in a row without one answer are not; and such a trial has not succeeded.
        `asker` is as for `failed`.
        """
        if permit != self._epoch:
            return False
        if self._ended != self._silent_since:
            self._silent_since, self._silent, self._given_up = self._ended, 0, Doubts()
        self._silent += 1
        self._given_up.add(asker)
        if self._open_until_s is not None:
            return self._trial_failed(now_s, chance, self._given_up, asker, why=GIVEN_UP)
        if self._silent - self._given_up.doubted < self._policy.min_requests:
            return False
        if not self._company.may_open(self, was_reached=True):
            return False
        self.last_failure = GIVEN_UP
        return self._open_again(now_s, chance)

    def rest(
        self, now_s: float, *, for_s: float, asker: Asker | None = None, was_failure: bool = True
    ) -> bool:
        """Leave the instance alone because it asked for that; True if it can be spared.

        It is no failure: a later opening takes as long as if there had been no rest. `asker` is as
        for `failed`, which was told before if it `was_failure`: what the instance asks of one
        client alone is nothing to the others.
        """
        doubts = self._failures.doubts
        if not was_failure:
            self._limits.take(self._policy, now_s, 0, 0)
            doubts = self._limits.doubts
            doubts.add(asker)
        if doubts.are_of_one(asker):
            return False
        if self._open_until_s is not None or not self._company.may_rest(self):
            return False
        self.last_failure = RETRY_AFTER
        self._change(now_s, open_until_s=now_s + for_s, is_resting=True)
        return True

    def wake(self, now_s: float) -> None:
        """Close again, for nobody else is left; only for one that rests."""
        assert self.is_resting, "it did not ask to be left alone"
        self._change(now_s, open_until_s=None)

    def hurry(self, now_s: float) -> None:
        """Let the next trial out at once: what shut all of them out is over."""
        if self._open_until_s is not None:
            self._open_until_s = min(self._open_until_s, now_s)
            self._opened_times = 0

    def _gives_trial(self, now_s: float) -> bool:
        assert self._open_until_s is not None
        is_early = now_s < self._open_until_s
        return not (is_early or self.has_trial_out or self._company.holds_trials)

    def _has_had_enough(self) -> bool:
        """Return whether the failures that count are enough to open."""
        return self._is_enough(self._row.doubted, self._failures.doubts.doubted)

    def _is_enough(self, apart_in_row: int, apart_in_window: int) -> bool:
        """Return whether the failures are enough without so many of them."""
        policy = self._policy
        if self._consecutive - apart_in_row >= policy.consecutive_failures:
            return True
        counts = (self._ended, self._failed, policy.failure_ratio)
        return self._failures.is_full(policy, counts, apart_in_window)

    def _open_again(self, now_s: float, chance: float) -> bool:
        """Open; a trial ahead of its time, or one of an outage, changes nothing by failing."""
        until_s = self._open_until_s
        if until_s is not None and (now_s < until_s or self._company.holds_trials):
            self.has_trial_out = False
            return False
        doublings = min(self._opened_times, _LONGEST_DOUBLING)
        longest_s = min(self._policy.open_for_s * 2.0**doublings, self._policy.max_open_for_s)
        self._opened_times += 1
        self._change(now_s, open_until_s=now_s + longest_s * (0.9 + 0.1 * chance))
        return True

    def _change(
        self, now_s: float, *, open_until_s: float | None, is_resting: bool = False
    ) -> None:
        self._epoch = Permit(self._epoch + 1)
        if open_until_s is None:
            self._shut_since_s = None
        elif self._open_until_s is None:
            self._shut_since_s = now_s
        self._open_until_s = open_until_s
        self.is_resting = is_resting
        self.has_trial_out = False
        self._is_withheld = False
        self._consecutive = self._silent = 0
        self._given_up = Doubts()
        self._failures = _Window()
        self._slowness = _Window()
        self.changed_at_s = now_s
        self._company.changed(now_s)
