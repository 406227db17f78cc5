"""The law of the Budget: load is never amplified by more than it says, in any schedule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budget import SAVED_FOR_S, Budget

steps = st.lists(
    st.tuples(st.floats(0, 30), st.integers(0, 500), st.integers(0, 200), st.booleans()),
    max_size=30,
)


@given(steps, st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), st.sampled_from([0.0, 1.0, 3.0]))
def test_attempts_never_exceed_one_and_the_share_and_what_is_always_allowed(
    schedule: list[tuple[float, int, int, bool]], share: float, per_s: float
) -> None:
    budget = Budget()
    now_s, answered, sent_again = 1000.0, 0, 0
    for pause_s, came, failed, is_swept in schedule:
        now_s += pause_s
        answered += came
        budget.answered += came
        if is_swept:
            budget.sweep(now_s)
        sent_again += sum(budget.spend(now_s, share=share, per_s=per_s) for _ in range(failed))

        passed_s = now_s - 1000.0
        allowed = share * answered + per_s * (passed_s + SAVED_FOR_S)
        assert sent_again <= allowed + 1e-6


@given(st.integers(1, 200), st.integers(0, 10_000))
def test_a_failure_of_one_in_ten_is_always_made_up_for(per_second: int, seed: int) -> None:
    """A share of a fifth is room enough for what is usual, however it falls in time."""
    budget = Budget()
    for second in range(20):
        now_s = 1000.0 + second + (seed * second % 997) / 1000
        budget.answered += per_second
        failed = per_second // 10
        assert all(budget.spend(now_s, share=0.2, per_s=0.1) for _ in range(failed))
