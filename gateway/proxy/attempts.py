"""The attempts of one Exchange: whom it tried, whom it has in hand, and what the Breakers are told.

For each Permit that was given, exactly one report goes back: praise, blame, or a release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.breaker import Permit
from gateway.core.failure import VERDICTS, Again, Failure
from gateway.core.fleet import Fleet, Member, absence
from gateway.proxy.sides import BreakerObserver, ConnectionPool

_NONE = Permit(-1)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed, kept for the log."""

    member: Member[ConnectionPool]
    failure: Failure
    detail: str


class Attempts:
    """All attempts of one Exchange; `member` is the one in hand or the last one."""

    __slots__ = (
        "_fleet",
        "_is_in_hand",
        "_observer",
        "_permit",
        "_random",
        "_tried",
        "failed",
        "member",
    )

    def __init__(
        self,
        fleet: Fleet[ConnectionPool],
        random: Callable[[], float],
        observer: BreakerObserver,
    ) -> None:
        self._fleet = fleet
        self._random = random
        self._observer = observer
        self._permit = _NONE
        self._tried: list[Member[ConnectionPool]] = []
        self._is_in_hand = False
        self.member: Member[ConnectionPool]
        self.failed: list[FailedAttempt] = []

    def __repr__(self) -> str:
        return f"<Attempts {len(self._tried)} tried, {len(self.failed)} failed>"

    def take_next(self, now_s: float, *, at_most: int) -> Member[ConnectionPool] | None:
        """Take the next candidate in hand and let the one before go; None if there is nobody.

        `at_most` is how many may be tried in all.
        """
        if len(self._tried) >= at_most:
            return None
        choice = self._fleet.choose(self._tried, now_s, self._random)
        if choice is None:
            return None
        if self._is_in_hand:
            self.end()
        member, self._permit = choice
        self.member = member
        self._tried.append(member)
        self._is_in_hand = True
        member.in_flight += 1
        return member

    def take_same_again(self, now_s: float) -> Member[ConnectionPool] | None:
        """Take the last one in hand once more, for what went wrong was nobody's fault.

        None if its Breaker has opened meanwhile.
        """
        member = self.member
        permit = member.breaker.admit(now_s)
        if permit is None:
            return None
        self.failed.pop()
        self._permit = permit
        self._is_in_hand = True
        member.in_flight += 1
        return member

    def praise(self, now_s: float) -> None:
        """Tell the Breaker that the instance did well, unless it was blamed already."""
        permit, self._permit = self._permit, _NONE
        if permit >= 0 and self.member.breaker.succeeded(permit, now_s):
            self._observer.breaker_changed(self._fleet.service, self.member, now_s)

    def praise_trial(self, now_s: float) -> None:
        """Tell a half-open Breaker at once: it must not wait for the end of an endless answer."""
        if self.member.breaker.is_trial(self._permit):
            self.praise(now_s)

    def blame(self, failure: Failure, detail: str, now_s: float) -> None:
        """Record a failed attempt, and tell the Breaker where the failure counts."""
        member = self.member
        self.failed.append(FailedAttempt(member, failure, detail))
        permit, self._permit = self._permit, _NONE
        if permit < 0:
            return
        if not VERDICTS[failure].counts:
            member.breaker.released(permit)
        elif member.breaker.failed(permit, now_s, why=failure.value, chance=self._random()):
            self._observer.breaker_changed(self._fleet.service, member, now_s)

    def end(self) -> None:
        """Let the one in hand go; a Permit that was not reported is given back."""
        if self._is_in_hand:
            member = self.member
            self._is_in_hand = False
            member.in_flight -= 1
            if self._permit >= 0:
                member.breaker.released(self._permit)
                self._permit = _NONE

    def verdict(self, now_s: float) -> tuple[Failure, str]:
        """Sum up why nobody (else) can be tried: the failure to answer with, and its detail."""
        if not self.failed:
            return self._why_nobody()
        last = self.failed[-1]
        if not self._reached_nobody(now_s):
            return last.failure, last.detail
        # The whole service is not there: that is more than one bad gateway hop.
        known = len(self._fleet.members)
        return Failure.ALL_UNREACHABLE, f"none of {known} instances, the last: {last.detail}"

    def _reached_nobody(self, now_s: float) -> bool:
        """Tell whether a service of several instances has none left that might be reached.

        Each that may be tried refused the connection just now; the others' Breakers are open.
        """
        members = self._fleet.members.values()
        return (
            len(members) > 1
            and all(VERDICTS[one.failure].again is Again.ALWAYS for one in self.failed)
            and not any(
                member not in self._tried and member.breaker.would_admit(now_s)
                for member in members
                if member.instance.is_routable
            )
        )

    def _why_nobody(self) -> tuple[Failure, str]:
        fleet = self._fleet
        if fleet.snapshot is None:
            return Failure.CATALOG_COLD, f"the registry has told nothing of {fleet.service!r} yet"
        if not fleet.tiers:
            return Failure.NO_INSTANCES, absence(fleet.snapshot)
        return Failure.BREAKERS_OPEN, f"every Breaker of service {fleet.service!r} is open"
