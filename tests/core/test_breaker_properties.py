"""Laws of the Breaker, for any order of attempts, reports and time."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.breaker import Breaker, BreakerState, Permit
from gateway.core.policy import BreakerPolicy

POLICY = BreakerPolicy(
    consecutive_failures=4,
    failure_ratio=0.5,
    min_requests=6,
    window_s=10.0,
    open_for_s=4.0,
    max_open_for_s=30.0,
)
some_permit = st.integers(min_value=0, max_value=1000)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)


@dataclass(frozen=True, slots=True)
class Out:
    """A Permit that was not reported yet, and how often the Breaker had changed before it."""

    permit: Permit
    epoch: int


@dataclass(frozen=True, slots=True)
class Ended:
    at_s: float
    ok: bool


class BreakerMachine(RuleBasedStateMachine):
    """Any number of exchanges share one Breaker; each reports its Permit once.

    What the machine remembers is what the docstring of the module promises, told in other words:
    it knows when the Breaker last opened and what was reported since it last changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now_s = 1000.0
        self.out: list[Out] = []
        self.epoch = 0
        self.opened_at_s: float | None = None
        self.openings = 0
        self.ended: list[Ended] = []

    # --- What may happen -------------------------------------------------------------------------

    @rule(by_s=st.one_of(st.floats(min_value=0, max_value=3), st.floats(min_value=0, max_value=40)))
    def time_passes(self, by_s: float) -> None:
        self.now_s += by_s

    @rule()
    def somebody_asks(self) -> None:
        state = self.breaker.state(self.now_s)
        would_admit = self.breaker.would_admit(self.now_s)
        permit = self.breaker.admit(self.now_s)

        assert would_admit == (permit is not None)
        if state is BreakerState.CLOSED:
            assert permit is not None
        elif state is BreakerState.OPEN:
            assert permit is None
        else:
            assert (not self.current()) == (permit is not None)
        if permit is not None:
            self.out.append(Out(permit, self.epoch))
            assert self.breaker.is_trial(permit) == (state is BreakerState.HALF_OPEN)

    @precondition(lambda self: self.out)
    @rule(which=some_permit)
    def an_attempt_succeeds(self, which: int) -> None:
        out, before = self.take(which), self.picture()

        closed = self.breaker.succeeded(out.permit, self.now_s)

        if out.epoch != self.epoch:
            assert (False, before) == (closed, self.picture())
            return
        assert (self.opened_at_s is not None) == closed
        self.ended.append(Ended(self.now_s, ok=True))
        if closed:
            self.openings = 0
            self.opened_at_s = None
            self.changed()

    @precondition(lambda self: self.out)
    @rule(which=some_permit, chance=chances)
    def an_attempt_fails(self, which: int, chance: float) -> None:
        out, before = self.take(which), self.picture()

        opened = self.breaker.failed(out.permit, self.now_s, why="head_timeout", chance=chance)

        if out.epoch != self.epoch:
            assert (False, before) == (opened, self.picture())
            return
        self.ended.append(Ended(self.now_s, ok=False))
        if self.opened_at_s is not None or self.in_a_row() or self.since_the_first_failure():
            assert opened
        if opened:
            assert self.opened_at_s is not None or self.in_a_row() or self.in_some_window()
            self.opened()

    @precondition(lambda self: self.out)
    @rule(which=some_permit)
    def an_attempt_says_nothing(self, which: int) -> None:
        out, before = self.take(which), self.picture()
        was_trial = self.breaker.is_trial(out.permit)

        self.breaker.released(out.permit)

        if was_trial:
            assert self.breaker.would_admit(self.now_s)
        else:
            assert before == self.picture()

    # --- What always holds -----------------------------------------------------------------------

    @invariant()
    def at_most_one_trial_is_out_while_not_closed(self) -> None:
        if self.opened_at_s is not None:
            assert len(self.current()) <= 1

    @invariant()
    def it_is_never_open_for_longer_than_the_longest(self) -> None:
        if self.breaker.state(self.now_s) is BreakerState.OPEN:
            assert self.opened_at_s is not None
            assert self.now_s < self.opened_at_s + POLICY.max_open_for_s

    @invariant()
    def it_is_closed_exactly_if_it_has_closed_since_it_opened(self) -> None:
        is_closed = self.breaker.state(self.now_s) is BreakerState.CLOSED
        assert (self.opened_at_s is None) == is_closed

    def teardown(self) -> None:
        """Report all that is out: no trial may be left, or the instance were lost for ever."""
        while self.out:
            self.an_attempt_says_nothing(len(self.out) - 1)
        assert self.breaker.would_admit(self.now_s + POLICY.max_open_for_s)

    # --- What the machine knows ------------------------------------------------------------------

    def current(self) -> list[Out]:
        return [out for out in self.out if out.epoch == self.epoch]

    def take(self, which: int) -> Out:
        return self.out.pop(which % len(self.out))

    def picture(self) -> dict[str, object]:
        return {name: getattr(self.breaker, name) for name in Breaker.__slots__}

    def changed(self) -> None:
        assert self.breaker.changed_at_s == self.now_s
        self.epoch += 1
        self.ended = []

    def opened(self) -> None:
        longest_s = min(POLICY.open_for_s * 2**self.openings, POLICY.max_open_for_s)
        open_for_s = self.breaker.retry_at_s(self.now_s) - self.now_s
        assert 0.9 * longest_s - 1e-6 <= open_for_s <= longest_s + 1e-6
        self.openings += 1
        self.opened_at_s = self.now_s
        self.changed()

    def in_a_row(self) -> bool:
        last = self.ended[-POLICY.consecutive_failures :]
        return len(last) == POLICY.consecutive_failures and not any(one.ok for one in last)

    def since_the_first_failure(self) -> bool:
        """Whether the first window after the last change has seen enough."""
        first = next(index for index, one in enumerate(self.ended) if not one.ok)
        return self.is_enough(self.ended[first:])

    def in_some_window(self) -> bool:
        """Whether any stretch that begins with a failure has seen enough within the window."""
        return any(
            not one.ok and self.is_enough(self.ended[index:])
            for index, one in enumerate(self.ended)
        )

    def is_enough(self, ended: list[Ended]) -> bool:
        failed = sum(not one.ok for one in ended)
        return (
            self.now_s - ended[0].at_s <= POLICY.window_s
            and len(ended) >= POLICY.min_requests
            and failed >= POLICY.failure_ratio * len(ended)
        )


TestBreakerMachine = BreakerMachine.TestCase
