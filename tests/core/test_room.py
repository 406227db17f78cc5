"""Who gives way when all places are taken, and what it costs to find that out."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.room import MOST_LOOKED_AT, MOST_NOTED, Room


class One:
    """Somebody with a place; `looks` counts how often it was asked since when it is idle."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.looks = 0

    @property
    def spare_since_s(self) -> float:
        self.looks += 1
        return self.since_s


def room_of(*since_s: float) -> tuple[Room[One], list[One]]:
    room: Room[One] = Room()
    everybody = [One(each_s) for each_s in since_s]
    for one in everybody:
        room.add(one)
    return room, everybody


def found(room: Room[One], tick: float = 1.0) -> float | None:
    """Let one give way, and tell since when it was idle."""
    one = room.longest_idle(tick)
    if one is None:
        return None
    room.discard(one)
    return one.since_s


def looks(everybody: Sequence[One]) -> int:
    return sum(one.looks for one in everybody)


def test_the_longest_idle_goes_first_and_those_in_use_never() -> None:
    room, _ = room_of(3.0, inf, 1.0, 2.0)

    assert [found(room) for _ in range(5)] == [1.0, 2.0, 3.0, None, None]
    assert repr(room) == "<Room 1 in it, 0 noted>"


def test_one_that_came_into_use_after_it_was_noted_stays() -> None:
    room, (first, second, third) = room_of(1.0, 2.0, 3.0)
    assert room.longest_idle(1.0) is first
    second.since_s = inf
    room.discard(third)
    room.discard(third)  # whoever ends in two ways leaves once

    assert room.longest_idle(1.0) is first


def test_one_that_was_used_meanwhile_is_the_last_of_all() -> None:
    room, (first, _) = room_of(1.0, 2.0)
    room.add(One(3.0))
    assert found(room) == 1.0
    room.add(first)
    first.since_s = 4.0

    assert [found(room) for _ in range(3)] == [2.0, 3.0, 4.0]


def test_a_flood_of_newcomers_looks_at_each_but_once_for_many() -> None:
    room, everybody = room_of(*map(float, range(4000)))

    assert [found(room) for _ in range(MOST_NOTED)] == list(map(float, range(MOST_NOTED)))
    assert looks(everybody) == 4000 + MOST_NOTED


def test_where_nobody_is_idle_a_flood_costs_one_look_in_each_tick() -> None:
    room, everybody = room_of(*[inf] * MOST_LOOKED_AT)

    assert {found(room, tick) for tick in (1.0, 2.0) for _ in range(100)} == {None}
    assert looks(everybody) == 2 * MOST_LOOKED_AT


def test_more_than_are_looked_at_in_one_tick_are_looked_at_in_turns() -> None:
    busy = [inf] * MOST_LOOKED_AT
    room, _ = room_of(*busy, 1.0)

    assert [found(room, tick) for tick in (1.0, 1.0, 2.0)] == [None, None, 1.0]


@given(st.lists(st.one_of(st.just(inf), st.floats(0, 100)), max_size=40))
def test_all_that_are_idle_go_in_the_order_of_their_idleness(since_s: list[float]) -> None:
    room, _ = room_of(*since_s)
    idle = sorted(each_s for each_s in since_s if each_s < inf)

    assert [found(room) for _ in idle] == idle
    assert found(room) is None
