"""The live state of one service: its Members, and the choice among them.

Snapshots come and go; what was learned about an instance (its Breaker, its requests in flight, its
connections) belongs to the Member, which lives as long as its key is in the Snapshots. A Member
that is gone finishes what it has in hand, and nothing new.

Whatever can be decided before a request comes is decided when a Snapshot or a policy is applied,
or by `refresh`, about once a second: tiers, weights, and how the first choice is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from math import inf
from typing import Generic, NamedTuple, TypeVar

from gateway.core.absence import absence_of
from gateway.core.affinity import Affinity, affinity_of, token_of
from gateway.core.balancing import Balancer, Pick, RequestKey
from gateway.core.breaker import Breaker, Permit
from gateway.core.breakers import Breakers
from gateway.core.doubts import Asker, Witnesses
from gateway.core.errors_seen import ErrorShare, ErrorsSeen
from gateway.core.failure import Failure
from gateway.core.hashing import hash64
from gateway.core.health import UNKNOWN, CheckState
from gateway.core.identity import client_of
from gateway.core.message import Request
from gateway.core.model import Instance, Snapshot
from gateway.core.peer import Peer
from gateway.core.policy import BalancingPolicy, BreakerPolicy
from gateway.core.slow_start import weigh
from gateway.core.strategy import balancer_of
from gateway.core.tiers import tiers_of

P = TypeVar("P")

_BAD_STATUS = Failure.RETRIABLE_STATUS.value
_KEPT_FAILURES = 5
_MADE_AT_ONCE = 32
_LATENCY_MEMORY_S = 10.0
_SHORTEST_LATENCY_S = 0.0001
_FAILED_LATENCY_S = 1.0


class SeenFailure(NamedTuple):
    """One failed attempt or 5xx response, as the admin port shows it; `at_s` is monotonic."""

    at_s: float
    failure: str
    detail: str


class Member(Generic[P]):
    """One instance with all that was learned about it.

    `pool` are its connections; whoever made the Fleet knows what they are. `check` is what the
    gateway's own health checks say of it; only `Fleet.checked` sets it. `weight` is the one in
    use: that of the instance, less while it starts slowly, which it does from `serves_since_s` on
    (None: it does not). `latency_s` is how long it took to answer of late, 0 if it never did.
    `in_flight` are the requests in hand with it, `tunnels` those of them that are tunnels by now.
    `served` is the last request that got a good response, None if there was none of late; `peer`
    is from whom it came, None if nobody knows, or if others may stand behind it.
    """

    __slots__ = (
        "_before",
        "_observed_at_s",
        "breaker",
        "check",
        "errors",
        "failures",
        "in_flight",
        "instance",
        "is_gone",
        "latency_s",
        "peer",
        "pool",
        "seed",
        "served",
        "serves_since_s",
        "token",
        "tunnels",
        "turn",
        "weight",
        "witnesses",
    )

    def __init__(self, instance: Instance, breaker: Breaker, pool: P) -> None:
        self.instance = instance
        self.weight = float(instance.weight)
        self.breaker = breaker
        self.check = UNKNOWN
        self.pool = pool
        self.in_flight = 0
        self.tunnels = 0
        self.is_gone = False
        self.latency_s = 0.0
        self.serves_since_s: float | None = None
        self.turn = 0.0
        self.seed = hash64(instance.key.encode())
        self.token = b""
        self.failures: deque[SeenFailure] = deque(maxlen=_KEPT_FAILURES)
        self.errors = ErrorsSeen()
        self.peer: Peer | None = None
        self.served: Request | None = None
        self._before: tuple[Request, float] | None = None
        self.witnesses = Witnesses()
        self._observed_at_s = 0.0

    def __repr__(self) -> str:
        gone = ", gone" if self.is_gone else ""
        return f"<Member {self.instance.key}, {self.in_flight} in flight{gone}, {self.breaker!r}>"

    @property
    def zone(self) -> str | None:
        """Where it is, None where that is not known."""
        return self.instance.zone

    def observe(self, latency_s: float, now_s: float) -> None:
        """Learn how long an answer took to begin.

        What took longer than usual counts at once, what took less only by and by (peak EWMA).
        """
        # Some clocks count whole milliseconds, and 0 would say that nothing is known.
        if latency_s < _SHORTEST_LATENCY_S:  # noqa: PLR1730 -- hot path
            latency_s = _SHORTEST_LATENCY_S
        known_s = self.latency_s
        if latency_s > known_s:
            self.latency_s = latency_s
        else:
            elapsed_s = now_s - self._observed_at_s
            portion = elapsed_s / (elapsed_s + _LATENCY_MEMORY_S)
            self.latency_s = known_s + (latency_s - known_s) * portion
        self._observed_at_s = now_s

    def serves_another(self, request: Request) -> None:
        """Keep who was served before this one; to be called before `observe`, if the peer differs.

        So the last two clients are known, at the cost of a comparison where there is only one.
        """
        served = self.served
        if served is not None and not _is_of_same(served, request):
            self._before = served, self._observed_at_s
        self.served = request
        self.peer = None if request.peer.is_trusted else request.peer

    def note_witnesses(self) -> None:
        """Note who was served last, and before, and keep their requests no longer."""
        before, served = self._before, self.served
        if before is not None:
            self._note(*before)
        if served is not None:
            self._note(served, self._observed_at_s)
        self._before = self.served = self.peer = None

    def _note(self, request: Request, at_s: float) -> None:
        self.witnesses.note(client_of(request.peer, request.received), at_s)

    def asker_of(self, request: Request, asked_at_s: float, now_s: float) -> Asker:
        """Return whose request failed, and whether others were served of late, or since then."""
        self.note_witnesses()
        client = client_of(request.peer, request.received)
        since_s = self.breaker.doubts_since_s(now_s, asked_at_s)
        return Asker(client, self.witnesses.has_other(client, since_s=since_s))

    def note_failure(self, failure: str, detail: str, latency_s: float, now_s: float) -> None:
        """Keep a failure for those who look; one that came fast is no fast answer.

        Of one that never answered nothing is known to go by, and it must not look like the fastest.
        """
        self.note_witnesses()
        self.failures.append(SeenFailure(now_s, failure, detail))
        if failure == _BAD_STATUS:  # of all others Breakers tell, as long as they last
            self.errors.note(now_s, self.breaker.ended_count)
        self.observe(max(latency_s, self.latency_s or _FAILED_LATENCY_S), now_s)

    def note_server_error(self, status: int, now_s: float) -> None:
        """Keep a 5xx response that is no failed attempt: the instance answered, and not well."""
        self.failures.append(SeenFailure(now_s, "server_error", f"the instance answered {status}"))
        self.errors.note(now_s, self.breaker.ended_count)

    def error_share(self, now_s: float) -> ErrorShare:
        """Return how many of its latest requests went wrong."""
        return self.errors.share(now_s, self.breaker.ended_count)

    def cool(self, now_s: float) -> None:
        """Forget a little of the latency when nothing is asked, so that it is asked again."""
        elapsed_s = now_s - self._observed_at_s
        if elapsed_s >= 1 and not self.in_flight:
            self.latency_s *= _LATENCY_MEMORY_S / (_LATENCY_MEMORY_S + elapsed_s)
            self._observed_at_s = now_s


def _is_of_same(one: Request, other: Request) -> bool:
    """Tell whether two requests came from the same address, for the same chain of addresses."""
    return one.peer.address == other.peer.address and _chain(one) == _chain(other)


def _chain(request: Request) -> bytes | None:
    return request.received.get(b"x-forwarded-for") if request.received else None


class Fleet(Generic[P]):
    """All Members of one service, in tiers: one gets traffic only when none before it can.

    First come those that pass, then those with warnings, then the same of each other datacenter;
    those of weight 0 after all others. With `panic` the critical ones are the last. In the tiers
    are those to whom nobody says no but perhaps their Breaker.
    `make_pool` is called once for each new instance. `snapshot` is None until the registry has told
    anything at all. `affinity` reads the keys of requests, None where none is needed. Below `room`
    in hand an instance has room for one more, `has_room` tells it of others too; `breakers` decides
    for those of all together.
    """

    __slots__ = (
        "_ahead",
        "_balancer",
        "_changes_with_time",
        "_make_pool",
        "_most_connections",
        "_most_requests",
        "_now_s",
        "_pick",
        "_policy",
        "_zone",
        "affinity",
        "breakers",
        "members",
        "room",
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
        self.affinity: Affinity | None = None
        self.room = self._most_requests = self._most_connections = inf
        self._ahead: dict[str, Member[P]] = {}
        self._make_pool = make_pool
        self.breakers = Breakers(breaker)
        self._policy = BalancingPolicy()
        self._zone: str | None = None
        self._balancer: Balancer[Member[P]] = balancer_of(self._policy, None)
        self._pick: Pick[Member[P]] | None = None
        self._changes_with_time = False
        self._now_s = 0.0

    def __repr__(self) -> str:
        return f"<Fleet {self.service}, {[len(tier) for tier in self.tiers]}>"

    def limit(self, *, most_requests: float, most_connections: float) -> None:
        """Bound what each instance has at once, `inf` for any number; tunnels are connections."""
        self._most_requests, self._most_connections = most_requests, most_connections
        self.room = min(most_requests, most_connections)

    def has_room(self, member: Member[P]) -> bool:
        """Tell whether an instance may have one more request; a tunnel is none any more."""
        count = member.in_flight
        return count < self._most_connections and count - member.tunnels < self._most_requests

    # --- Following -------------------------------------------------------------------------------

    def prepare(self, instances: Iterable[Instance]) -> Iterator[None]:
        """Make the Members of new instances ahead of `apply`, yielding between a few at a time."""
        self._ahead, count = {}, 0
        for instance in instances:
            member = self.members.get(instance.key)
            if member is None or member.instance.scheme != instance.scheme:
                self._ahead[instance.key] = self._new_member(instance)
                count += 1
                if count % _MADE_AT_ONCE == 0:
                    yield

    def apply(self, snapshot: Snapshot, now_s: float | None = None) -> list[Member[P]]:
        """Follow a new Snapshot; return the Members that it no longer has, or has another for.

        `now_s` is when, as far as that matters for slow start: left out, the time last told.
        """
        if now_s is not None:
            self._now_s = now_s
        members: dict[str, Member[P]] = {}
        for instance in snapshot.instances:
            members[instance.key] = self._member_for(instance)
        self._ahead = {}
        gone = [one for key, one in self.members.items() if members.get(key) is not one]
        for member in gone:
            member.is_gone = True
        # Whoever is there when the gateway starts has been there before, whether or not the file
        # of the last run knew it.
        is_start = self.snapshot is None or self.snapshot.source == "disk"
        self.snapshot = snapshot
        self.members = members
        self._build_tiers(is_start=is_start)
        return gone

    def checked(self, key: str, check: CheckState) -> None:
        """Take what health checks say of a Member now; the tiers follow at once.

        A key that is not (any more) in the Snapshot is ignored.
        """
        member = self.members.get(key)
        if member is None:
            return
        before, member.check = member.check, check
        if before.is_failing is not check.is_failing:
            self._build_tiers()

    def adopt(self, breaker: BreakerPolicy) -> None:
        """Follow another Breaker policy from now on."""
        self._ahead = {}
        self.breakers.adopt(breaker)
        for member in self.members.values():
            member.breaker.adopt(breaker)

    def balance_by(self, policy: BalancingPolicy, zone: str | None = None) -> None:
        """Choose by this policy from now on; `zone` is the gateway's own, None to ignore zones."""
        if (policy, zone) == (self._policy, self._zone):
            return
        self._ahead = {}
        self._policy, self._zone = policy, zone
        self._balancer = balancer_of(policy, zone)
        self.affinity = affinity_of(policy)
        for member in self.members.values():
            member.token = self._token_of(member.instance)
            member.turn = 0.0
        self._build_tiers()

    def reach_by(self, make_pool: Callable[[Instance], P]) -> list[Member[P]]:
        """Reach all instances in another way from now on; return the Members that are replaced."""
        self._ahead = {}
        self._make_pool = make_pool
        replaced, self.members = list(self.members.values()), {}
        for member in replaced:
            member.is_gone = True
        if self.snapshot is not None:
            self.apply(self.snapshot)
        return replaced

    def recovered(self, member: Member[P], now_s: float) -> None:
        """Hear that the Breaker of a Member closed again: it starts slowly."""
        self._now_s = now_s
        if self._policy.slow_start_s is not None:
            member.serves_since_s = now_s
            self._weigh()

    def refresh(self, now_s: float) -> None:
        """Bring what changes with time up to date; to be called about once a second."""
        self._now_s = now_s
        for member in self.members.values():
            if member.served is not None:
                member.note_witnesses()
        if self._changes_with_time:
            for member in self.members.values():
                member.cool(now_s)
            self._weigh()

    # --- Choosing --------------------------------------------------------------------------------

    def choose(
        self,
        tried: Collection[Member[P]],
        now_s: float,
        random: Callable[[], float],
        key: RequestKey | None = None,
    ) -> tuple[Member[P], Permit] | None:
        """Choose a Member that was not tried yet and whose Breaker gives a Permit, or None.

        `key` is what `affinity` has read of the request, None where there is no affinity.
        """
        pick = self._pick
        if pick is not None and not tried:
            # Nearly always the first pick is good, and nothing else needs to be looked at.
            member = pick(random, key)
            permit = member.breaker.admit(now_s)
            if permit is not None:
                return member, permit
        for tier in self.tiers:
            able = [m for m in tier if m not in tried and m.breaker.would_admit(now_s)]
            if able:
                member = self._balancer(able)(random, key)
                permit = member.breaker.admit(now_s)
                assert permit is not None, "the Breaker said that it would admit"
                return member, permit
        return self._last_resort(tried, now_s, random, key)

    def _last_resort(
        self,
        tried: Collection[Member[P]],
        now_s: float,
        random: Callable[[], float],
        key: RequestKey | None,
    ) -> tuple[Member[P], Permit] | None:
        """Choose somebody though no Breaker admits, as `when_all_open` says."""
        untried = [[m for m in tier if m not in tried] for tier in self.tiers]
        if not self.breakers.routes_anyway:
            # A trial for one that has no room would be lost to the service.
            able = [m for tier in untried for m in tier if self.has_room(m)]
            return self.breakers.last_resort(able, now_s)
        first = next((tier for tier in untried if tier), None)
        if first is None:
            return None
        member = self._balancer(first)(random, key)
        return member, member.breaker.admit_anyway()

    @property
    def size(self) -> int:
        """How many Members may get traffic at all."""
        return sum(len(tier) for tier in self.tiers)

    def retry_at_s(self, now_s: float) -> float | None:
        """Tell when the next Breaker lets somebody try, None if there is nobody to try."""
        return self.breakers.retry_at_s(now_s)

    def absence(self) -> str:
        """Say in words why nobody may get traffic; for a Fleet that has a Snapshot."""
        assert self.snapshot is not None
        return f"service {self.service!r} has {absence_of(self.members.values(), self.snapshot)}"

    # --- What is decided beforehand --------------------------------------------------------------

    def _member_for(self, instance: Instance) -> Member[P]:
        member = self.members.get(instance.key)
        # What was learned over http says nothing of https, and its connections are of no use there.
        if member is None or member.instance.scheme != instance.scheme:
            member = self._ahead.get(instance.key)
            if member is None or member.instance.scheme != instance.scheme:
                member = self._new_member(instance)
        member.instance = instance
        member.weight = float(instance.weight)
        return member

    def _new_member(self, instance: Instance) -> Member[P]:
        member = Member(instance, self.breakers.make(), self._make_pool(instance))
        member.token = self._token_of(instance)
        return member

    def _token_of(self, instance: Instance) -> bytes:
        sticky = self._policy.sticky
        return b"" if sticky.cookie is None else token_of(self.service, instance.key, sticky)

    def _build_tiers(self, *, is_start: bool = False) -> None:
        """Sort the Members into tiers; those that were in none begin to serve now.

        What their Breakers know is older than what brought them back, so they get a trial at once.
        """
        before = {member for tier in self.tiers for member in tier}
        able = [one for one in self.members.values() if not one.check.is_failing]
        self.tiers = tiers_of(able, panic=self._policy.panic)
        for member in (member for tier in self.tiers for member in tier if member not in before):
            member.serves_since_s = None if is_start else self._now_s
            member.breaker.hurry(self._now_s)
        self.breakers.watch(*self._groups(), now_s=self._now_s)
        self._weigh()

    def _groups(self) -> list[list[Breaker]]:
        """List the Breakers by tier, and in it by whether they are in the gateway's own zone."""
        groups: dict[tuple[int, bool], list[Breaker]] = {}
        for rank, tier in enumerate(self.tiers):
            for one in tier:
                is_near = self._zone is not None and one.zone == self._zone
                groups.setdefault((rank, is_near), []).append(one.breaker)
        return list(groups.values())

    def _weigh(self) -> None:
        """Set the weights, and prepare the first choice."""
        is_starting = [
            weigh(tier, now_s=self._now_s, slow_start_s=self._policy.slow_start_s)
            for tier in self.tiers
        ]
        first = self.tiers[0] if self.tiers else ()
        is_zoned = self._zone is not None and len({one.zone == self._zone for one in first}) > 1
        self._pick = self._balancer(self._able(first) if is_zoned else first) if first else None
        self._changes_with_time = any(is_starting) or is_zoned or self._policy.balance == "ewma"

    def _able(self, tier: tuple[Member[P], ...]) -> tuple[Member[P], ...]:
        """Keep those that a Breaker lets have traffic now, or all where it is nobody.

        How much of the traffic a zone keeps depends on how many in it can serve.
        """
        return tuple(one for one in tier if one.breaker.would_admit(self._now_s)) or tier
