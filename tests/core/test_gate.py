"""Who gets in, who waits, and who is refused."""

from __future__ import annotations

import pytest

from gateway.core.gate import Entry, Gate
from gateway.core.policy import ConcurrencyPolicy, PriorityClass

NOW_S = 1000.0
CRITICAL, NORMAL, SHEDDABLE = PriorityClass


def gate(limit: int = 1, queue: int = 3, wait_s: float = 1.0) -> Gate[str]:
    return Gate("here", ConcurrencyPolicy(limit=limit, queue=queue, queue_wait_s=wait_s))


def enter(
    at: Gate[str], *names: str, priority_class: PriorityClass = NORMAL, now_s: float = NOW_S
) -> list[Entry]:
    return [at.enter(name, priority_class, now_s)[0] for name in names]


def run_dry(at: Gate[str], now_s: float = NOW_S) -> list[str]:
    """Let one after the other leave, until nobody waits."""
    order = []
    at.leave()
    while (one := at.next(now_s)) is not None:
        order.append(one)
        at.leave()
    return order


def test_so_many_get_in_a_few_wait_and_the_rest_is_refused() -> None:
    at = gate(limit=2, queue=1)

    entries = enter(at, "a", "b", "c", "d")

    assert entries == [Entry.ENTERED, Entry.ENTERED, Entry.WAITS, Entry.REFUSED]
    assert repr(at) == "<Gate 2 of 2, 1 waiting>"
    assert at.refused == 1


def test_the_first_comes_first_while_the_queue_drains() -> None:
    at = gate()
    enter(at, "a", "b", "c", "d")

    assert run_dry(at) == ["b", "c", "d"]
    assert at.in_flight == 0


def test_under_pressure_the_newest_comes_first() -> None:
    at = gate()
    enter(at, "a", "b", "c", "d")

    assert run_dry(at, NOW_S + 0.5) == ["d", "c", "b"]


def test_nobody_is_let_in_while_there_is_no_place() -> None:
    at = gate()
    enter(at, "a", "b")

    assert at.next(NOW_S) is None


def test_who_matters_more_goes_first() -> None:
    at = gate()
    enter(at, "a", "normal")
    enter(at, "critical", priority_class=CRITICAL)

    assert run_dry(at) == ["critical", "normal"]


def test_who_matters_more_takes_the_place_of_the_oldest_that_matters_less() -> None:
    at = gate(queue=2)
    enter(at, "a", "old", "new")

    assert at.enter("critical", CRITICAL, NOW_S) == (Entry.WAITS, "old")
    assert at.refused == 1
    assert run_dry(at) == ["critical", "new"]


def test_among_critical_ones_nobody_has_to_leave() -> None:
    at = gate(queue=1)
    enter(at, "a", "b", priority_class=CRITICAL)

    assert at.enter("c", CRITICAL, NOW_S) == (Entry.REFUSED, None)


@pytest.mark.parametrize(("limit", "entered"), [(1, 1), (2, 2), (5, 4), (10, 8)])
def test_what_is_sheddable_never_waits_and_leaves_a_fifth_to_the_others(
    limit: int, entered: int
) -> None:
    at = gate(limit=limit)

    entries = enter(at, *("x" * limit), "y", priority_class=SHEDDABLE)

    assert entries == [Entry.ENTERED] * entered + [Entry.REFUSED] * (limit + 1 - entered)


def test_what_is_sheddable_passes_nobody_who_waits() -> None:
    at = gate(limit=1)
    enter(at, "a", "b")
    at.limit = 10

    assert enter(at, "c", priority_class=SHEDDABLE) == [Entry.REFUSED]


def test_whoever_comes_now_passes_nobody_who_waits_and_matters_as_much() -> None:
    at = gate(limit=1)
    enter(at, "a", "b")
    at.limit = 3

    assert enter(at, "c") == [Entry.WAITS]
    assert enter(at, "d", priority_class=CRITICAL) == [Entry.ENTERED]


def test_whoever_waited_too_long_or_left_is_taken_out_and_only_the_first_was_refused() -> None:
    at = gate(queue=3)
    enter(at, "a", "b", "c", "d")

    at.withdraw("b", in_vain=True)
    at.withdraw("c", in_vain=False)
    at.withdraw("nobody", in_vain=False)

    assert run_dry(at) == ["d"]
    assert at.refused == 1


def test_another_limit_holds_from_the_next_one_on() -> None:
    at = gate(limit=2)
    enter(at, "a", "b")
    at.limit = 1

    at.leave()

    assert enter(at, "c") == [Entry.WAITS]
    assert at.next(NOW_S) is None


def test_another_policy_holds_from_now_on_and_keeps_who_is_in() -> None:
    at = gate(limit=2)
    enter(at, "a", "b", "c")

    at.adopt(ConcurrencyPolicy(limit=3, queue=0))

    assert at.next(NOW_S) == "c"
    assert enter(at, "d") == [Entry.REFUSED]


def test_an_adaptive_limit_follows_what_it_hears() -> None:
    at: Gate[str] = Gate("here", ConcurrencyPolicy(is_adaptive=True))
    first = at.limit
    enter(at, *"x" * first)

    for tick in range(100):
        at.answered(0.02, NOW_S + tick / 10)
    grown = at.limit
    for _ in range(100):
        at.timed_out()

    assert first < grown
    assert at.limit < grown
    at.adopt(ConcurrencyPolicy(is_adaptive=True, queue=1))
    assert at.limit < grown


def test_a_fixed_limit_hears_nothing() -> None:
    at = gate(limit=7)

    at.answered(0.02, NOW_S)
    at.timed_out()

    assert at.limit == 7


def test_whoever_is_done_as_soon_as_it_is_in_makes_room_for_the_next_and_no_call_for_each() -> None:
    at = gate(queue=2000)
    enter(at, "a")
    for number in range(2000):
        at.enter(str(number), NORMAL, NOW_S)
    done: list[str] = []

    def let_in(one: str) -> None:
        done.append(one)
        at.leave()
        at.fill(let_in, NOW_S)

    at.leave()
    at.fill(let_in, NOW_S)

    assert done == [str(number) for number in range(2000)]
    assert at.in_flight == 0
