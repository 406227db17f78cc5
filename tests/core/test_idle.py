"""Idle connections are let go before the instance closes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.idle import SHORTEST_S, UNKNOWN_S, IdleLimit

SECONDS = st.floats(min_value=0, max_value=10_000)


def test_nothing_known_is_a_minute() -> None:
    assert IdleLimit().kept_s(now_s=5.0) == UNKNOWN_S


def test_what_the_instance_says_is_believed_even_if_it_is_more_than_was_seen() -> None:
    limit = IdleLimit()
    limit.seen(2.0, now_s=0.0)

    limit.said(5.0, now_s=1.0)

    assert limit.kept_s(now_s=1.0) == 5.0


def test_what_was_seen_only_shortens() -> None:
    limit = IdleLimit()
    limit.seen(5.0, now_s=0.0)
    limit.seen(3.0, now_s=1.0)
    limit.seen(4.0, now_s=2.0)

    assert limit.kept_s(now_s=2.0) == 3.0


def test_a_connection_is_not_used_up_to_the_last_moment() -> None:
    limit = IdleLimit()
    limit.said(5.0, now_s=0.0)

    assert limit.usable_s(now_s=0.0) == 4.0


def test_it_is_forgotten_after_a_while() -> None:
    """A restart closes connections of any age; that says little about the next ones."""
    limit = IdleLimit()
    limit.seen(2.0, now_s=0.0)

    assert limit.kept_s(now_s=599.0) == 2.0
    assert limit.kept_s(now_s=601.0) == UNKNOWN_S


def test_its_repr_tells_what_is_known() -> None:
    limit = IdleLimit()
    limit.said(5.0, now_s=0.0)

    assert repr(limit) == "<IdleLimit 5.0 s>"


@given(st.lists(st.tuples(st.booleans(), SECONDS)), SECONDS)
def test_it_stays_within_its_bounds_whatever_is_learned(
    learned: list[tuple[bool, float]], now_s: float
) -> None:
    limit = IdleLimit()
    for is_said, idle_s in learned:
        (limit.said if is_said else limit.seen)(idle_s, now_s)

    assert SHORTEST_S <= limit.kept_s(now_s) <= UNKNOWN_S
    assert limit.usable_s(now_s) < limit.kept_s(now_s)
