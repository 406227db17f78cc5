"""Places that are shared fairly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fair import FairPlaces


def test_one_who_has_most_loses_its_newest_for_another() -> None:
    places = FairPlaces[str](3)
    assert [places.add(name, "greedy") for name in ("a", "b", "c")] == [None] * 3

    assert places.add("d", "greedy") == "d"
    assert places.add("x", "other") == "c"
    assert places.add("y", "other") == "b"  # both have had two; this one had so many for longer
    assert repr(places) == "<FairPlaces 3 of 3, 2 owners>"


def test_where_all_have_one_the_first_gives_way() -> None:
    places = FairPlaces[int](2)
    assert [places.add(number, number) for number in range(5)] == [None, None, 0, 1, 2]


def test_one_that_has_left_is_not_sent_away() -> None:
    places = FairPlaces[str](2)
    places.add("a", "first")
    places.add("b", "first")
    places.discard("b", "first")
    places.discard("b", "first")
    places.discard("a", "nobody")
    assert places.add("x", "second") is None
    places.discard("a", "first")
    places.discard("x", "second")
    assert (places.count, repr(places)) == (0, "<FairPlaces 0 of 2, 0 owners>")
    assert places.add("z", "third") is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60), st.integers(1, 6))
def test_the_one_sent_away_is_of_an_owner_with_most(
    steps: list[tuple[int, bool]], most: int
) -> None:
    places = FairPlaces[int](most)
    held: dict[int, int] = {}  # which belongs to whom
    for number, (owner, comes) in enumerate(steps):
        mine = [one for one, of in held.items() if of == owner]
        if comes:
            held[number] = owner
            counts = [list(held.values()).count(of) for of in held.values()]
            left = places.add(number, owner)
            assert (left is None) is (len(held) <= most)
            if left is not None:
                assert list(held.values()).count(held[left]) == max(counts)
                del held[left]
        elif mine:
            places.discard(mine[0], owner)
            del held[mine[0]]
        assert places.count == len(held) <= most
