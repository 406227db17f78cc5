"""The attempts of one Exchange: whom it tried, whom it has in hand, and what the Breakers are told.

For each Permit that was given, exactly one report goes back: praise, blame, or a release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.balancing import RequestKey
from gateway.core.breaker import Permit
from gateway.core.failure import VERDICTS, Again, Failure
from gateway.core.fleet import Fleet, Member
from gateway.core.message import AnswerHead, Request
from gateway.proxy.sides import BreakerObserver, ConnectionPool

Choice = tuple[Member[ConnectionPool], Permit]

_NONE = Permit(-1)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed, kept for the log; `was_trial` if it was one and blamed nobody."""

    member: Member[ConnectionPool]
    failure: Failure
    detail: str
    was_trial: bool = False


@dataclass(frozen=True, slots=True)
class Beside:
    """An attempt beside the one in hand: its Permit, and since when it owes an answer."""

    member: Member[ConnectionPool]
    permit: Permit
    owed_since_s: float


class Attempts:
    """All attempts of one Exchange; `member` is the one in hand or the last one.

    `is_in_hand` says which of the two. `owed_since_s` is since when it owes an answer: since it was
    taken, and has all of the request that has come.
    """

    __slots__ = (
        "_fleet",
        "_is_full",
        "_key",
        "_observer",
        "_permit",
        "_random",
        "_tried",
        "failed",
        "is_in_hand",
        "member",
        "owed_since_s",
    )

    def __init__(
        self,
        fleet: Fleet[ConnectionPool],
        random: Callable[[], float],
        observer: BreakerObserver,
        request: Request,
    ) -> None:
        self._fleet = fleet
        self._random = random
        self._observer = observer
        self._permit = _NONE
        self._tried: list[Member[ConnectionPool]] = []
        self._is_full = False
        self.is_in_hand = False
        self._key: RequestKey | None = fleet.affinity and fleet.affinity.key_of(request)
        self.member: Member[ConnectionPool]
        self.owed_since_s: float
        self.failed: list[FailedAttempt] = []

    def __repr__(self) -> str:
        return f"<Attempts {len(self._tried)} tried, {len(self.failed)} failed>"

    def take_next(self, now_s: float, at_most: int) -> Member[ConnectionPool] | None:
        """Take the next candidate in hand and let the one before go; None if there is nobody.

        `at_most` is how many may be tried in all.
        """
        tried, fleet = self._tried, self._fleet
        if len(tried) >= at_most:
            return None
        choice = fleet.choose(tried, now_s, self._random, self._key)
        if choice is None:
            return None
        if choice[0].in_flight >= fleet.room:
            choice = self._choose_with_room(choice, tried, now_s)
            if choice is None:
                return None
        return self._take(choice, now_s)

    def take_again(self, now_s: float, at_most: int) -> Member[ConnectionPool] | None:
        """Take one that was tried before, rather another one than the last; as `take_next`."""
        tried = self._tried
        if len(tried) >= at_most:
            return None
        choice = self._choose(tried[-1:], now_s) or self._choose([], now_s)
        return None if choice is None else self._take(choice, now_s)

    def _take(self, choice: Choice, now_s: float) -> Member[ConnectionPool]:
        if self.is_in_hand:
            self.end()
        member, self._permit = choice
        self.member = member
        self.owed_since_s = now_s
        self._tried.append(member)
        self.is_in_hand = True
        member.in_flight += 1
        return member

    def _choose(self, tried: list[Member[ConnectionPool]], now_s: float) -> Choice | None:
        """Choose somebody who has room."""
        choice = self._fleet.choose(tried, now_s, self._random, self._key)
        return choice and self._choose_with_room(choice, tried, now_s)

    def _choose_with_room(
        self, choice: Choice | None, tried: list[Member[ConnectionPool]], now_s: float
    ) -> Choice | None:
        """Choose others until one has room."""
        fleet, full = self._fleet, list(tried)
        while choice is not None and not fleet.has_room(choice[0]):
            self._is_full = True
            member, permit = choice
            member.breaker.released(permit)
            full.append(member)
            choice = fleet.choose(full, now_s, self._random, self._key)
        return choice

    def may_be_helped(self, *, at_most: int) -> bool:
        """Tell whether one that was gone is being tried just now, and could be taken if it is back.

        `at_most` is as for `take_next`.
        """
        return len(self._tried) < at_most and any(
            one.breaker.has_trial_out and one.breaker.is_gone and one not in self._tried
            for tier in self._fleet.tiers
            for one in tier
        )

    def take_same_again(self, now_s: float) -> Member[ConnectionPool] | None:
        """Take the last one in hand once more, for what went wrong was nobody's fault.

        None if its Breaker has opened meanwhile.
        """
        member = self.member
        breaker = member.breaker
        was_trial = self.failed[-1].was_trial
        permit = breaker.admit_trial(now_s) if was_trial else breaker.admit(now_s)
        if permit is None:
            return None
        self.failed.pop()
        self._permit = permit
        self.owed_since_s = now_s
        self.is_in_hand = True
        member.in_flight += 1
        return member

    def praise(self, now_s: float) -> None:
        """Tell the Breaker that the instance did well, unless it was blamed already."""
        permit, self._permit = self._permit, _NONE
        if permit >= 0 and self.member.breaker.succeeded(permit, now_s):
            self._fleet.recovered(self.member, now_s)
            self._observer.breaker_changed(self._fleet.service, self.member, now_s)

    def succeed(self, now_s: float) -> None:
        """Let the one in hand go after its answer, with praise unless it was blamed already."""
        member, permit = self.member, self._permit
        self._permit = _NONE
        if self.is_in_hand:
            self.is_in_hand = False
            member.in_flight -= 1
        if permit >= 0 and member.breaker.succeeded(permit, now_s):
            self._fleet.recovered(member, now_s)
            self._observer.breaker_changed(self._fleet.service, member, now_s)

    def slow(self, request: Request, now_s: float) -> None:
        """Tell the Breaker that the answer took long to begin."""
        permit, self._permit = self._permit, _NONE
        member, chance = self.member, self._random()
        if permit < 0:
            return
        asker = member.asker_of(request, self.owed_since_s, now_s)
        if member.breaker.slowed(permit, now_s, chance=chance, asker=asker):
            self._observer.breaker_changed(self._fleet.service, member, now_s)

    def rest(
        self, request: Request, now_s: float, *, for_s: float, was_failure: bool = True
    ) -> None:
        """Leave the instance alone because it asked for that, if it can be spared."""
        member = self.member
        asker = member.asker_of(request, self.owed_since_s, now_s)
        if member.breaker.rest(now_s, for_s=for_s, asker=asker, was_failure=was_failure):
            self._observer.breaker_changed(self._fleet.service, member, now_s)

    def answered(self, head: AnswerHead, request: Request, now_s: float) -> None:
        """Take note of a good answer: how long it took, to whom, and who is to be come back to.

        A half-open Breaker is told at once: it must not wait for the end of an endless answer.
        """
        member = self.member
        if request.peer is not member.peer:
            member.serves_another(request)
        member.observe(now_s - self.owed_since_s, now_s)
        if member.breaker.has_trial_out and member.breaker.is_trial(self._permit):
            self.praise(now_s)
        if self._key is not None:
            self._mark(head, self._key)

    def blame(self, failure: Failure, detail: str, request: Request, now_s: float) -> None:
        """Record a failed attempt, and tell the Breaker where the failure counts."""
        permit, self._permit = self._permit, _NONE
        one = Beside(self.member, permit, self.owed_since_s)
        self._blame(one, failure, detail, request, now_s)

    def _blame(
        self, one: Beside, failure: Failure, detail: str, request: Request, now_s: float
    ) -> None:
        member, permit, verdict = one.member, one.permit, VERDICTS[failure]
        was_trial = not verdict.counts and member.breaker.is_trial(permit)
        self.failed.append(FailedAttempt(member, failure, detail, was_trial))
        if permit < 0:
            return
        if not verdict.counts:
            member.breaker.released(permit)
            return
        # Where nothing can have been sent, the instance took no connection.
        was_reached, chance = verdict.again is not Again.ALWAYS, self._random()
        asked_at_s = one.owed_since_s
        asker = member.asker_of(request, asked_at_s, now_s) if was_reached else None
        member.note_failure(failure.value, detail, now_s - asked_at_s, now_s)
        if member.breaker.failed(
            permit,
            now_s,
            why=failure.value,
            chance=chance,
            was_reached=was_reached,
            has_closed=verdict.has_closed,
            asker=asker,
        ):
            self._observer.breaker_changed(self._fleet.service, member, now_s)

    def end(self) -> None:
        """Let the one in hand go; a Permit that was not reported is given back."""
        if self.is_in_hand:
            member = self.member
            self.is_in_hand = False
            member.in_flight -= 1
            if self._permit >= 0:
                member.breaker.released(self._permit)
                self._permit = _NONE

    # --- A second one beside it ------------------------------------------------------------------

    def take_beside(self, now_s: float, *, at_most: int) -> Beside | None:
        """Take another candidate beside the one in hand; whoever asked must give it back."""
        if len(self._tried) >= at_most:
            return None
        choice = self._choose(self._tried, now_s)
        if choice is None:
            return None
        member, permit = choice
        self._tried.append(member)
        member.in_flight += 1
        return Beside(member, permit, now_s)

    def put_back(self, one: Beside, *, was_sent: bool) -> None:
        """Let one go that was beside; a Permit that was not reported is given back.

        One to which nothing was sent was not tried.
        """
        if not was_sent:
            self._tried.remove(one.member)
        one.member.in_flight -= 1
        one.member.breaker.released(one.permit)

    def blame_beside(
        self, one: Beside, failure: Failure, detail: str, request: Request, now_s: float
    ) -> None:
        """Blame one that was beside, and let it go."""
        self._blame(one, failure, detail, request, now_s)
        one.member.in_flight -= 1

    def change_over(self, one: Beside, request: Request, now_s: float) -> None:
        """Go on with the one beside; nobody waits any longer for the one in hand."""
        if self.is_in_hand:
            # So long it has taken at least; whoever goes by latency must not take it for fast.
            slow = self.member
            asker = slow.asker_of(request, self.owed_since_s, now_s)
            slow.observe(max(now_s - self.owed_since_s, slow.latency_s), now_s)
            permit, chance = self._permit, self._random()
            if permit >= 0 and slow.breaker.gave_up(permit, now_s, chance=chance, asker=asker):
                self._observer.breaker_changed(self._fleet.service, slow, now_s)
            self.end()
        self.member, self._permit, self.owed_since_s = one.member, one.permit, one.owed_since_s
        self.is_in_hand = True

    # --- Why -------------------------------------------------------------------------------------

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

    def _mark(self, head: AnswerHead, key: RequestKey) -> None:
        """Let a client with a sticky cookie, or without one yet, come back to whoever answered."""
        affinity, token = self._fleet.affinity, self.member.token
        if affinity is not None and affinity.is_sticky and key.token != token:
            cookie = affinity.set_cookie(token, is_secure=key.is_secure)
            head.lines += b"\r\nSet-Cookie: " + cookie

    def _reached_nobody(self, now_s: float) -> bool:
        """Tell whether a service of several instances has none left that might be reached.

        Each that may be tried refused the connection just now; the others' Breakers are open.
        """
        return (
            len(self._fleet.members) > 1
            and all(VERDICTS[one.failure].again is Again.ALWAYS for one in self.failed)
            and not any(
                member not in self._tried and member.breaker.would_admit(now_s)
                for tier in self._fleet.tiers
                for member in tier
            )
        )

    def _why_nobody(self) -> tuple[Failure, str]:
        fleet = self._fleet
        if self._is_full:
            limit = f"{fleet.room:g} requests in hand already"
            return Failure.OVER_CAPACITY, f"each instance of {fleet.service!r} has {limit}"
        if fleet.snapshot is None:
            return Failure.CATALOG_COLD, f"the registry has told nothing of {fleet.service!r} yet"
        if not fleet.tiers:
            return Failure.NO_INSTANCES, fleet.absence()
        return Failure.BREAKERS_OPEN, f"every Breaker of service {fleet.service!r} is open"
