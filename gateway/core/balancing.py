"""Which candidate first: two are drawn, and the one with fewer requests in flight gets it.

The power of two choices: nearly as even as asking everybody, at the cost of two draws, and without
the herd that runs to the one least loaded (Mitzenmacher 2001). Where weights differ, the draws
follow the weights, so that the shares are right at any load, also with one request at a time.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """Something that carries load: `weight` is its share of the whole.

    Weight 0 means that it gets nothing while anything else can.
    """

    in_flight: int
    weight: int


L = TypeVar("L", bound=Loaded)


def pick(candidates: Sequence[L], random: Callable[[], float]) -> L:
    """Pick one of at least one candidates of equal weight; `random` gives numbers in [0, 1)."""
    count = len(candidates)
    if count == 1:
        return candidates[0]
    first = int(random() * count)
    # The second draw is from the others, so that it is never the same one twice.
    second = int(random() * (count - 1))
    if second >= first:
        second += 1
    one, other = candidates[first], candidates[second]
    return other if other.in_flight < one.in_flight else one


def pick_by_weight(candidates: Sequence[L], random: Callable[[], float]) -> L:
    """Pick one of at least one candidates of any weights; `random` gives numbers in [0, 1)."""
    one = _draw(candidates, random)
    others = [candidate for candidate in candidates if candidate is not one and candidate.weight]
    if not others:
        return one
    other = _draw(others, random)
    # To compare (in_flight + 1) / weight of both looks right and is not: whoever is idle and heavy
    # would always win, and a light one would get nothing until the heavy one is full.
    with_this_one = (other.in_flight + 1) * one.weight
    return other if with_this_one <= one.in_flight * other.weight else one


def _draw(candidates: Sequence[L], random: Callable[[], float]) -> L:
    bounds = list(accumulate(candidate.weight for candidate in candidates))
    if not bounds[-1]:
        return candidates[int(random() * len(candidates))]
    return candidates[bisect(bounds, random() * bounds[-1])]
