"""Laws of the Breakers of one service, for any order of attempts, reports, time and Snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.breaker import TRIAL_EVERY_S, Breaker, Permit
from gateway.core.breakers import Breakers
from gateway.core.policy import BreakerPolicy, WhenAllOpen

POLICY = BreakerPolicy(
    consecutive_failures=2,
    min_requests=4,
    slow_after_s=1.0,
    open_for_s=4.0,
    max_open_for_s=30.0,
    max_open_ratio=0.5,
)
which_one = st.integers(min_value=0, max_value=1000)
pauses_s = st.one_of(st.floats(min_value=0, max_value=1.5), st.floats(min_value=0, max_value=40))


@dataclass(frozen=True, slots=True)
class Owner:
    breaker: Breaker


@dataclass(frozen=True, slots=True)
class Out:
    """A Permit that was not reported yet."""

    breaker: Breaker
    permit: Permit


class BreakersMachine(RuleBasedStateMachine):
    """Many requests share a service; each attempt takes one Permit and reports it once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.out: list[Out] = []
        self.trials_at_s: list[float] = []

    @initialize(count=st.integers(1, 6), when=st.sampled_from(WhenAllOpen))
    def begin(self, count: int, when: WhenAllOpen) -> None:
        policy = POLICY
        if when is WhenAllOpen.ROUTE_ANYWAY:
            policy = BreakerPolicy(
                consecutive_failures=2,
                min_requests=4,
                open_for_s=4.0,
                max_open_for_s=30.0,
                when_all_open=when,
            )
        self.company = Breakers(policy)
        self.when = when
        self.everybody = [self.company.make() for _ in range(count)]
        self.watched = list(self.everybody)
        self.company.watch(self.watched, now_s=self.now_s)

    # --- What may happen -------------------------------------------------------------------------

    @rule(by_s=pauses_s)
    def time_passes(self, by_s: float) -> None:
        self.now_s += by_s

    @rule(which=which_one)
    def a_request_comes(self, which: int) -> None:
        breaker = self.watched[which % len(self.watched)]
        was_closed = not breaker.is_shut
        permit = breaker.admit(self.now_s)
        assert (permit is not None) or not was_closed
        if permit is None:
            self.nobody_admits()
            return
        assert was_closed or not self.company.holds_trials
        self.out.append(Out(breaker, permit))

    def nobody_admits(self) -> None:
        owners = [Owner(one) for one in self.watched]
        choice = self.company.last_resort(owners, self.now_s)
        if choice is not None:
            assert self.company.is_outage or choice[0].breaker.is_gone
            self.trials_at_s.append(self.now_s)
            self.out.append(Out(choice[0].breaker, choice[1]))

    @precondition(lambda self: self.out)
    @rule(which=which_one)
    def it_succeeds(self, which: int) -> None:
        out = self.take(which)
        was_outage = self.company.is_outage
        closed = out.breaker.succeeded(out.permit, self.now_s)
        if closed and was_outage and out.breaker in self.watched:
            assert not self.company.is_outage
            others = [one for one in self.watched if one.is_shut]
            assert all(one.retry_at_s(self.now_s) == self.now_s for one in others)

    @precondition(lambda self: self.out)
    @rule(
        which=which_one,
        was_reached=st.booleans(),
        is_slow=st.booleans(),
        why=st.sampled_from(["connect_failed", "head_timeout"]),
    )
    def it_fails(self, which: int, *, was_reached: bool, is_slow: bool, why: str) -> None:
        out = self.take(which)
        breaker, permit = out.breaker, out.permit
        was_shut = breaker.is_shut
        rows = {id(one): one.failures_in_a_row for one in self.watched if not one.is_shut}
        if is_slow:
            opened = breaker.slowed(permit, self.now_s, chance=0.5)
        else:
            opened = breaker.failed(
                permit, self.now_s, why=why, chance=0.5, was_reached=was_reached
            )
        is_capped = opened and not was_shut and (was_reached or is_slow)
        if is_capped and id(breaker) in rows and self.shut_count > 0.5 * len(self.watched):
            rows[id(breaker)] += 1  # the failure that opened it
            assert len(self.watched) == 1 or (
                min(rows.values()) >= POLICY.consecutive_failures
                and sum(rows.values()) >= POLICY.min_requests
            )

    @precondition(lambda self: self.out)
    @rule(which=which_one)
    def nobody_is_to_blame(self, which: int) -> None:
        out = self.take(which)
        out.breaker.released(out.permit)

    @rule(which=which_one)
    def one_asks_for_rest(self, which: int) -> None:
        breaker = self.watched[which % len(self.watched)]
        if breaker.rest(self.now_s, for_s=3.0):
            assert self.shut_count <= 0.5 * len(self.watched)
            assert self.those_who_serve(without=breaker)

    @rule(keep=st.lists(st.booleans(), min_size=6, max_size=6))
    def the_registry_tells(self, keep: list[bool]) -> None:
        chosen = [one for one, kept in zip(self.everybody, keep, strict=False) if kept]
        self.watched = chosen or self.everybody[:1]
        self.company.watch(self.watched, now_s=self.now_s)
        self.trials_at_s.clear()  # a Snapshot may begin another outage

    # --- What always holds -----------------------------------------------------------------------

    @invariant()
    def an_outage_is_when_all_are_shut(self) -> None:
        assert self.company.is_outage == (self.shut_count == len(self.watched))
        is_probed = self.when is WhenAllOpen.PROBE
        assert self.company.holds_trials == (self.company.is_outage and is_probed)

    @invariant()
    def the_service_lets_one_trial_a_second_through(self) -> None:
        pairs = zip(self.trials_at_s, self.trials_at_s[1:], strict=False)
        assert all(later >= earlier + TRIAL_EVERY_S for earlier, later in pairs)

    @invariant()
    def whoever_must_wait_is_told_until_when(self) -> None:
        retry_at_s = self.company.retry_at_s(self.now_s)
        assert retry_at_s is not None
        assert self.now_s <= retry_at_s <= self.now_s + POLICY.max_open_for_s

    def teardown(self) -> None:
        """Give back all that is out: whatever happened, somebody is tried before long."""
        while self.out:
            self.nobody_is_to_blame(0)
        later_s = self.now_s + POLICY.max_open_for_s
        owners = [Owner(one) for one in self.watched]
        is_admitted = any(one.admit(later_s) is not None for one in self.watched)
        assert is_admitted or self.company.last_resort(owners, later_s) is not None

    # --- What the machine knows ------------------------------------------------------------------

    @property
    def shut_count(self) -> int:
        return sum(one.is_shut for one in self.watched)

    def take(self, which: int) -> Out:
        return self.out.pop(which % len(self.out))

    def those_who_serve(self, *, without: Breaker) -> bool:
        return any(
            not one.is_shut and not one.is_withheld for one in self.watched if one is not without
        )


TestBreakersMachine = BreakersMachine.TestCase


@given(st.integers(1, 9), st.data())
def test_a_dead_instance_costs_at_most_five_failed_attempts(
    count: int, data: st.DataObject
) -> None:
    """One after the other, however the requests fall; after that its trials are one at a time."""
    company = Breakers(BreakerPolicy())
    breakers = [company.make() for _ in range(count)]
    company.watch(breakers, now_s=1000.0)
    dead = set(data.draw(st.lists(st.sampled_from(range(count)), unique=True)))
    random = Random(data.draw(st.integers(0, 1000)))
    cost = dict.fromkeys(dead, 0)

    for request in range(300):
        now_s = 1000.0 + request * 0.003  # all of it within the first second
        number = random.randrange(count)
        permit = breakers[number].admit(now_s)
        if permit is None:
            continue
        if number in dead:
            cost[number] += 1
            breakers[number].failed(
                permit, now_s, why="connect_failed", chance=random.random(), was_reached=False
            )
        else:
            breakers[number].succeeded(permit, now_s)

    assert all(attempts <= 5 for attempts in cost.values())
