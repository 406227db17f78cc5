"""Which candidate first: two are drawn, and the one with fewer requests in flight gets it.

The power of two choices: nearly as even as asking everybody, at the cost of two draws, and without
the herd that runs to the one least loaded (Mitzenmacher 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """Something that carries load: `weight` is its share of the whole, at least 1."""

    in_flight: int
    weight: int


L = TypeVar("L", bound=Loaded)


def pick(candidates: Sequence[L], random: Callable[[], float]) -> L:
    """Pick one of at least one candidates; `random` gives numbers in [0, 1)."""
    count = len(candidates)
    if count == 1:
        return candidates[0]
    first = int(random() * count)
    # The second draw is from the others, so that it is never the same one twice.
    second = int(random() * (count - 1))
    if second >= first:
        second += 1
    one, other = candidates[first], candidates[second]
    if (other.in_flight + 1) * one.weight < (one.in_flight + 1) * other.weight:
        return other
    return one
