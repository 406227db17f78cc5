"""How much of a service's requests may be sent again."""

from __future__ import annotations

from gateway.core.budget import Budget

NOW_S = 1000.0


def spend(budget: Budget, now_s: float = NOW_S, *, share: float = 0.2, per_s: float = 3.0) -> bool:
    return budget.spend(now_s, share=share, per_s=per_s)


def spend_all(budget: Budget, now_s: float = NOW_S, *, per_s: float = 3.0) -> int:
    count = 0
    while spend(budget, now_s, per_s=per_s):
        count += 1
    return count


def test_a_quiet_service_has_what_ten_seconds_always_allow() -> None:
    assert spend_all(Budget()) == 30


def test_a_busy_service_has_a_share_of_its_good_answers_besides() -> None:
    budget = Budget()
    budget.answered = 500

    assert spend_all(budget) == 100 + 30


def test_without_anything_that_is_always_allowed_only_the_share_is_left() -> None:
    budget = Budget()
    budget.answered = 50

    assert spend_all(budget, per_s=0.0) == 10
    assert not spend(budget, share=0.0, per_s=0.0)


def test_what_was_spent_comes_back_with_time_and_with_good_answers() -> None:
    budget = Budget()
    spend_all(budget)

    budget.answered += 1
    assert spend_all(budget, NOW_S + 2) == 6
    budget.answered += 20
    assert spend_all(budget, NOW_S + 2) == 4


def test_while_nothing_goes_well_nothing_comes_back() -> None:
    budget = Budget()
    budget.answered = 100
    budget.sweep(NOW_S)

    assert sum(spend_all(budget, NOW_S + second) for second in range(1, 60)) == 18 + 30


def test_a_good_answer_after_an_outage_brings_back_what_is_always_allowed() -> None:
    budget = Budget()
    for second in range(60):
        spend_all(budget, NOW_S + second)

    assert not spend(budget, NOW_S + 60)
    budget.answered += 1
    assert spend_all(budget, NOW_S + 60) == 30


def test_what_is_older_than_ten_seconds_is_gone() -> None:
    budget = Budget()
    budget.answered = 1000
    budget.sweep(NOW_S)

    assert spend_all(budget, NOW_S + 11, per_s=0.0) == 0


def test_saved_answers_fade_within_ten_seconds() -> None:
    budget = Budget()
    budget.answered = 1000
    budget.sweep(NOW_S)

    assert spend_all(budget, NOW_S + 5, per_s=0.0) == 100


def test_answers_of_a_long_time_count_as_those_of_its_last_ten_seconds() -> None:
    budget = Budget()
    budget.sweep(NOW_S)
    budget.answered = 1000

    assert spend_all(budget, NOW_S + 100, per_s=0.0) == 20


def test_it_counts_for_people() -> None:
    budget = Budget()
    spend_all(budget)

    assert (budget.spent, budget.refused) == (30, 1)
    assert repr(budget) == "<Budget 30 spent, 1 refused, 0 answered>"
