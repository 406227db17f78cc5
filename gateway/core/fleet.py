"""The live state of one service: its Members, and the choice among them.

Snapshots come and go; what was learned about an instance (its Breaker, its requests in flight, its
connections) belongs to the Member, which lives as long as its key is in the Snapshots. A Member
that is gone finishes what it has in hand, and nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from gateway.core.balancing import pick, pick_by_weight
from gateway.core.breaker import Breaker, Permit
from gateway.core.model import Instance, Snapshot, Status
from gateway.core.policy import BreakerPolicy

P = TypeVar("P")

_TIERS = (Status.PASSING, Status.WARNING)


class Member(Generic[P]):
    """One instance with all that was learned about it.

    `pool` are its connections; whoever made the Fleet knows what they are.
    """

    __slots__ = ("breaker", "in_flight", "instance", "is_gone", "pool", "weight")

    def __init__(self, instance: Instance, breaker: Breaker, pool: P) -> None:
        self.instance = instance
        self.weight = instance.weight
        self.breaker = breaker
        self.pool = pool
        self.in_flight = 0
        self.is_gone = False

    def __repr__(self) -> str:
        gone = ", gone" if self.is_gone else ""
        return f"<Member {self.instance.key}, {self.in_flight} in flight{gone}, {self.breaker!r}>"


class Fleet(Generic[P]):
    """All Members of one service, by tiers: passing first, warning only when no passing one can.

    `make_pool` is called once for each new instance. `snapshot` is None until the registry has told
    anything at all.
    """

    __slots__ = (
        "_breaker_policy",
        "_make_pool",
        "_pick",
        "members",
        "service",
        "snapshot",
        "tiers",
    )

    def __init__(
        self, service: str, make_pool: Callable[[Instance], P], *, breaker: BreakerPolicy
    ) -> None:
        self.service = service
        self.snapshot: Snapshot | None = None
        self.members: dict[str, Member[P]] = {}
        self.tiers: tuple[tuple[Member[P], ...], ...] = ()
        self._make_pool = make_pool
        self._breaker_policy = breaker
        self._pick = pick

    def __repr__(self) -> str:
        return f"<Fleet {self.service}, {[len(tier) for tier in self.tiers]}>"

    def apply(self, snapshot: Snapshot) -> list[Member[P]]:
        """Follow a new Snapshot; return the Members that it no longer has, or has another for."""
        members: dict[str, Member[P]] = {}
        for instance in snapshot.instances:
            members[instance.key] = self._member_for(instance)
        gone = [one for key, one in self.members.items() if members.get(key) is not one]
        for member in gone:
            member.is_gone = True
        self.snapshot = snapshot
        self.members = members
        self.tiers = _tiers_of(members.values())
        weights = {member.weight for tier in self.tiers for member in tier}
        self._pick = pick_by_weight if len(weights) > 1 else pick
        return gone

    def adopt(self, breaker: BreakerPolicy) -> None:
        """Follow another Breaker policy from now on."""
        self._breaker_policy = breaker
        for member in self.members.values():
            member.breaker.adopt(breaker)

    def reach_by(self, make_pool: Callable[[Instance], P]) -> list[Member[P]]:
        """Reach all instances in another way from now on; return the Members that are replaced."""
        self._make_pool = make_pool
        replaced, self.members = list(self.members.values()), {}
        for member in replaced:
            member.is_gone = True
        if self.snapshot is not None:
            self.apply(self.snapshot)
        return replaced

    def choose(
        self,
        tried: Collection[Member[P]],
        now_s: float,
        random: Callable[[], float],
    ) -> tuple[Member[P], Permit] | None:
        """Choose a Member that was not tried yet and whose Breaker gives a Permit, or None."""
        for tier in self.tiers:
            if not tried:
                # Nearly always the first pick is good, and nothing else needs to be looked at.
                member = self._pick(tier, random)
                permit = member.breaker.admit(now_s)
                if permit is not None:
                    return member, permit
            able = [m for m in tier if m not in tried and m.breaker.would_admit(now_s)]
            if able:
                member = self._pick(able, random)
                permit = member.breaker.admit(now_s)
                assert permit is not None, "the Breaker said that it would admit"
                return member, permit
        return None

    @property
    def size(self) -> int:
        """How many Members may get traffic at all."""
        return sum(len(tier) for tier in self.tiers)

    def retry_at_s(self, now_s: float) -> float | None:
        """Tell when the next Breaker lets somebody try, None if there is nobody to try."""
        times = [member.breaker.retry_at_s(now_s) for tier in self.tiers for member in tier]
        return min(times, default=None)

    def _member_for(self, instance: Instance) -> Member[P]:
        member = self.members.get(instance.key)
        # What was learned over http says nothing of https, and its connections are of no use there.
        if member is None or member.instance.scheme != instance.scheme:
            return Member(instance, Breaker(self._breaker_policy), self._make_pool(instance))
        member.instance = instance
        member.weight = instance.weight
        return member


def _tiers_of(members: Iterable[Member[P]]) -> tuple[tuple[Member[P], ...], ...]:
    listed = tuple(members)
    tiers = (tuple(m for m in listed if m.instance.status is status) for status in _TIERS)
    return tuple(tier for tier in tiers if tier)


def absence(snapshot: Snapshot) -> str:
    """Say in words why a service has nobody who may get traffic."""
    if not snapshot.instances:
        return f"service {snapshot.service!r} has no instance registered"
    counts = {
        status: sum(1 for one in snapshot.instances if one.status is status)
        for status in (Status.CRITICAL, Status.MAINTENANCE)
    }
    parts = [f"{count} {status.value}" for status, count in counts.items() if count]
    return f"service {snapshot.service!r} has no healthy instance: {', '.join(parts)}"
