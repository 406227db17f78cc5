"""Laws of a Gate, for any order of coming, leaving and giving up."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.gate import Entry, Gate
from gateway.core.policy import ConcurrencyPolicy, PriorityClass

which_one = st.integers(0, 1000)


class GateMachine(RuleBasedStateMachine):
    """Requests come, wait, get in, give up and leave; the machine keeps a list of each."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.count = 0
        self.inside: list[int] = []
        self.waiting: dict[int, PriorityClass] = {}

    @initialize(limit=st.integers(1, 5), queue=st.integers(0, 4))
    def begin(self, limit: int, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.gate: Gate[int] = Gate(
            "here", ConcurrencyPolicy(limit=limit, queue=queue, queue_wait_s=1.0)
        )

    @rule(by_s=st.floats(0, 1))
    def time_passes(self, by_s: float) -> None:
        self.now_s += by_s

    @rule(priority_class=st.sampled_from(PriorityClass))
    def one_comes(self, priority_class: PriorityClass) -> None:
        self.count += 1
        entry, pushed_out = self.gate.enter(self.count, priority_class, self.now_s)
        if pushed_out is not None:
            assert self.waiting.pop(pushed_out) > priority_class
        if entry is Entry.ENTERED:
            self.inside.append(self.count)
        elif entry is Entry.WAITS:
            assert priority_class is not PriorityClass.SHEDDABLE
            self.waiting[self.count] = priority_class
        else:
            assert len(self.inside) >= min(self.limit, max(1, self.limit * 0.8))

    @precondition(lambda self: self.inside)
    @rule(which=which_one)
    def one_leaves(self, which: int) -> None:
        self.inside.pop(which % len(self.inside))
        self.gate.leave()
        while (one := self.gate.next(self.now_s)) is not None:
            priority_class = self.waiting.pop(one)
            assert all(priority_class <= other for other in self.waiting.values())
            self.inside.append(one)

    @precondition(lambda self: self.waiting)
    @rule(which=which_one)
    def one_gives_up(self, which: int) -> None:
        one = list(self.waiting)[which % len(self.waiting)]
        del self.waiting[one]
        self.gate.withdraw(one, in_vain=False)

    @invariant()
    def the_counts_are_those_of_the_lists(self) -> None:
        assert self.gate.in_flight == len(self.inside) <= self.limit
        assert self.gate.waiting == len(self.waiting) <= self.queue

    @invariant()
    def nobody_waits_for_a_place_that_is_free(self) -> None:
        assert not self.waiting or len(self.inside) == self.limit

    def teardown(self) -> None:
        while self.inside:
            self.one_leaves(0)
        assert self.waiting == {}


TestGateMachine = GateMachine.TestCase
