"""A Breaker decides whether one instance may be tried; every attempt needs a Permit from it.

                     enough failures                      open_for has passed
          ┌────────┐ ───────────────▶ ┌──────┐ ─────────────────────────────▶ ┌───────────┐
          │ closed │                  │ open │                                │ half-open │
          └────────┘                  └──────┘ ◀───────────────────────────── └───────────┘
               ▲                                      the trial failed              │
               └────────────────────────────────────────────────────────────────────┘
                                         the trial succeeded

Half-open lets exactly one trial out at a time. A Permit is reported back exactly once: succeeded,
failed, or released when nobody is to blame. Each change of state starts a new epoch, and a Permit
of an older epoch is ignored: what was sent before an outage says nothing about the instance after.

There is no timer: open turns into half-open when somebody asks.
"""

from __future__ import annotations

from enum import Enum
from typing import NewType

from gateway.core.policy import BreakerPolicy

Permit = NewType("Permit", int)

_LONGEST_DOUBLING = 30


class BreakerState(Enum):
    """The three states of the drawing above."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The Breaker of one instance. All times are monotonic seconds."""

    __slots__ = (
        "_consecutive",
        "_ended",
        "_epoch",
        "_failed",
        "_open_until_s",
        "_opened_times",
        "_policy",
        "_trial_out",
        "_window_ended",
        "_window_failed",
        "_window_from_s",
        "changed_at_s",
        "last_failure",
    )

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._epoch = 0
        self._open_until_s: float | None = None
        self._opened_times = 0
        self._trial_out = False
        self._consecutive = 0
        self._ended = 0
        self._failed = 0
        self._window_from_s = float("-inf")
        self._window_ended = 0
        self._window_failed = 0
        self.changed_at_s: float | None = None
        self.last_failure: str | None = None

    def __repr__(self) -> str:
        state = "closed" if self._open_until_s is None else f"open until {self._open_until_s:.1f}"
        return f"<Breaker {state}, {self._consecutive} in a row, epoch {self._epoch}>"

    def state(self, now_s: float) -> BreakerState:
        """Tell the state as it is now; asking changes nothing."""
        if self._open_until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._open_until_s else BreakerState.HALF_OPEN

    def adopt(self, policy: BreakerPolicy) -> None:
        """Follow another policy from now on; the state stays."""
        self._policy = policy

    def would_admit(self, now_s: float) -> bool:
        """Tell whether admit() would give a Permit now."""
        return self._open_until_s is None or (now_s >= self._open_until_s and not self._trial_out)

    def admit(self, now_s: float) -> Permit | None:
        """Give a Permit for one attempt, or None when the instance is to be left alone."""
        if self._open_until_s is not None:
            if now_s < self._open_until_s or self._trial_out:
                return None
            self._trial_out = True
        return Permit(self._epoch)

    def is_trial(self, permit: Permit) -> bool:
        """Tell whether this Permit is the trial that a half-open Breaker waits for."""
        return self._trial_out and permit == self._epoch

    def retry_at_s(self, now_s: float) -> float:
        """Tell when the next attempt may be possible; `now_s` itself if it is already."""
        return now_s if self._open_until_s is None else max(now_s, self._open_until_s)

    def released(self, permit: Permit) -> None:
        """Take a Permit back that says nothing about the instance."""
        if permit == self._epoch:
            self._trial_out = False

    def succeeded(self, permit: Permit, now_s: float) -> bool:
        """Count a success; True if this closed the Breaker."""
        if permit != self._epoch:
            return False
        self._ended += 1
        self._consecutive = 0
        if self._open_until_s is None:
            return False
        self._change(now_s, open_until_s=None)
        self._opened_times = 0
        return True

    def failed(self, permit: Permit, now_s: float, *, why: str, chance: float) -> bool:
        """Count a failure; True if this opened the Breaker (again).

        `chance` in [0, 1) spreads the time to the trial, so that gateways which saw the same
        outage do not come back at the same moment.
        """
        if permit != self._epoch:
            return False
        self._ended += 1
        self._failed += 1
        self._consecutive += 1
        self.last_failure = why
        if self._open_until_s is None and not self._has_had_enough(now_s):
            return False
        self._change(now_s, open_until_s=now_s + self._open_for_s(chance))
        self._opened_times += 1
        return True

    def _has_had_enough(self, now_s: float) -> bool:
        policy = self._policy
        if self._consecutive >= policy.consecutive_failures:
            return True
        # A window begins with a failure, so that a success costs nothing but a count.
        if now_s - self._window_from_s > policy.window_s:
            self._window_from_s = now_s
            self._window_ended = self._ended - 1
            self._window_failed = self._failed - 1
        ended = self._ended - self._window_ended
        failed = self._failed - self._window_failed
        return ended >= policy.min_requests and failed >= policy.failure_ratio * ended

    def _open_for_s(self, chance: float) -> float:
        doublings = min(self._opened_times, _LONGEST_DOUBLING)
        longest_s = min(self._policy.open_for_s * 2.0**doublings, self._policy.max_open_for_s)
        return longest_s * (0.9 + 0.1 * chance)

    def _change(self, now_s: float, *, open_until_s: float | None) -> None:
        self._epoch += 1
        self._open_until_s = open_until_s
        self._trial_out = False
        self._consecutive = 0
        self._window_from_s = float("-inf")
        self.changed_at_s = now_s
