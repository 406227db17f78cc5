"""Laws of health checks, for any order of results and any policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.health import UNKNOWN, Opinion, first_delay_s
from gateway.core.policy import HealthCheckPolicy

policies = st.builds(
    HealthCheckPolicy,
    interval_s=st.floats(0.05, 600),
    healthy_after=st.integers(1, 5),
    unhealthy_after=st.integers(1, 5),
)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)
POLICY = HealthCheckPolicy(interval_s=5.0, healthy_after=2, unhealthy_after=3)


class CheckMachine(RuleBasedStateMachine):
    """One instance and all results so far; what the docstring promises is read off their end."""

    def __init__(self) -> None:
        super().__init__()
        self.state = UNKNOWN
        self.results: list[bool] = []
        self.now_s = 1000.0

    @rule(passed=st.booleans(), by_s=st.floats(0, 10))
    def a_check_ends(self, passed: bool, by_s: float) -> None:  # noqa: FBT001
        self.now_s += by_s
        before = self.state
        self.results.append(passed)
        if passed:
            self.state = before.passed(POLICY, self.now_s)
        else:
            self.state = before.failed("503", POLICY, self.now_s)

        if self.state.opinion is before.opinion:
            assert before.changed_at_s == self.state.changed_at_s
        else:
            assert self.now_s == self.state.changed_at_s
            # Nothing turns for fewer results than the policy asks for.
            turned_by = self.streak()
            assert passed is (self.state.opinion is Opinion.HEALTHY)
            assert turned_by == {
                Opinion.UNHEALTHY: POLICY.unhealthy_after,
                Opinion.HEALTHY: POLICY.healthy_after if before.is_failing else 1,
            }.get(self.state.opinion)

    def streak(self) -> int:
        """Count the results at the end that are the same."""
        count = 0
        for result in reversed(self.results):
            if result is not self.results[-1]:
                break
            count += 1
        return count

    @invariant()
    def enough_in_a_row_decide(self) -> None:
        if self.results and self.results[-1] and self.streak() >= POLICY.healthy_after:
            assert self.state.opinion is Opinion.HEALTHY
            assert self.state.why is None
        if self.results and not self.results[-1] and self.streak() >= POLICY.unhealthy_after:
            assert self.state.opinion is Opinion.UNHEALTHY

    @invariant()
    def whoever_is_refused_has_a_reason(self) -> None:
        assert not self.state.is_failing or self.state.why

    @invariant()
    def only_one_kind_of_result_is_counted(self) -> None:
        counted = self.state.passed_in_a_row, self.state.failed_in_a_row
        assert sorted(counted) == [0, self.streak()]


TestChecks = CheckMachine.TestCase


@given(policies, st.lists(st.booleans(), max_size=40), chances)
def test_no_pause_is_shorter_than_the_quick_one_or_longer_than_the_interval(
    policy: HealthCheckPolicy, results: list[bool], chance: float
) -> None:
    state = UNKNOWN
    for passed in results:
        state = state.passed(policy, 0.0) if passed else state.failed("503", policy, 0.0)

    shortest_s = min(policy.interval_s, max(policy.interval_s / 5, 1.0))
    assert 0.9 * shortest_s <= state.delay_s(policy, chance) <= 1.1 * policy.interval_s


@given(policies, st.integers(0, 60), chances)
def test_a_fleet_that_is_down_for_long_costs_no_more_than_one_that_is_well(
    policy: HealthCheckPolicy, more: int, chance: float
) -> None:
    state = UNKNOWN
    for _ in range(policy.unhealthy_after + 10 + more):
        state = state.failed("503", policy, 0.0)

    assert state.delay_s(policy, chance) >= 0.9 * policy.interval_s


@given(policies, st.integers(1, 300))
def test_the_first_checks_of_many_are_spread_over_the_interval(
    policy: HealthCheckPolicy, count: int
) -> None:
    """With chances that are even, so are the checks: no tenth of the interval has too many."""
    delays_s = [first_delay_s(policy, number / count) for number in range(count)]

    tenths = [int(delay_s / policy.interval_s * 10) for delay_s in delays_s]
    assert all(0 <= delay_s < policy.interval_s for delay_s in delays_s)
    assert max(map(tenths.count, range(10))) <= count / 10 + 1
