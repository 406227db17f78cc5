"""Which candidate first: the Balancers, each a function from candidates to a Pick.

A Balancer prepares whatever does not change from request to request, so that a Pick costs little.
For failover it is asked again with those that are left, so each candidate comes at most once, and
all do if none is refused.

`p2c` is the default: two are drawn, and the one with fewer requests in flight gets it. That is
nearly as even as asking everybody, at the cost of two draws, and without the herd that runs to the
one least loaded (Mitzenmacher 2001). Where weights differ, draws follow the weights, so that the
shares are right at any load, also with one request at a time.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeVar


class Loaded(Protocol):
    """Something that carries load: `weight` is its share of the whole.

    The weights of candidates are all more than 0, or all 0, and then equal. `latency_s` is how long
    it took to answer of late, 0 if that is not known. `turn` belongs to RoundRobin.
    """

    in_flight: int
    weight: float
    latency_s: float
    turn: float


class RequestKey(NamedTuple):
    """What of a request decides where it goes.

    `hash` is 64 bits of what it is hashed on, None where it has no such thing. `token` names the
    instance that the client was told to come back to, empty for none. `is_secure` says that it came
    over TLS.
    """

    hash: int | None
    token: bytes
    is_secure: bool


L = TypeVar("L", bound=Loaded)

Random = Callable[[], float]
Pick = Callable[[Random, RequestKey | None], L]
Balancer = Callable[[Sequence[L]], Pick[L]]


def p2c(candidates: Sequence[L]) -> Pick[L]:
    """Pick the one of two that has fewer requests in flight for its weight."""
    if len(candidates) == 1:
        return _only(candidates[0])
    weights = weights_of(candidates)
    if len(set(weights)) > 1:
        return _p2c_by_weight(candidates, weights)
    others = len(candidates) - 1
    pairs = len(candidates) * others

    def pick(random: Random, _key: RequestKey | None) -> L:
        # One draw says both: the second is one of the others, so never the same one twice.
        pair = int(random() * pairs)
        first, second = pair // others, pair % others
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        return other if other.in_flight < one.in_flight else one

    return pick


def at_random(candidates: Sequence[L]) -> Pick[L]:
    """Pick any, as often as the weights say."""
    draw = _Draw(weights_of(candidates))

    def pick(random: Random, _key: RequestKey | None) -> L:
        return candidates[draw.one(random)]

    return pick


def least_requests(candidates: Sequence[L]) -> Pick[L]:
    """Pick the one with the fewest requests in flight for its weight; of equal ones, by weight."""
    weights = weights_of(candidates)

    def pick(random: Random, _key: RequestKey | None) -> L:
        fill = [one.in_flight / weight for one, weight in zip(candidates, weights, strict=True)]
        least = min(fill)
        even = [at for at, its in enumerate(fill) if its == least]
        return candidates[even[_Draw([weights[at] for at in even]).one(random)]]

    return pick


def ewma(candidates: Sequence[L]) -> Pick[L]:
    """Pick the one of two that will answer sooner: its latency of late, times those waiting there.

    Draws follow the weights. Where nothing is known of one, it gets one request to learn from.
    """
    weights = weights_of(candidates)
    draw, mean = _Draw(weights), sum(weights) / len(weights)

    def pick(random: Random, _key: RequestKey | None) -> L:
        first, second = draw.two(random)
        one, other = candidates[first], candidates[second]
        sooner = _wait_s(other, mean / weights[second]) < _wait_s(one, mean / weights[first])
        return other if sooner else one

    return pick


class RoundRobin:
    """Smooth weighted round robin: in each cycle everybody has exactly as many turns as weight.

    Each candidate's next turn is at a point of a line, and those of weight 3 come three times as
    often. Whoever was out for a while has missed its turns and does not catch up.

    Where in the line somebody begins who is new or back is left to chance: many gateways hear of
    the same instances at the same moment, and would all ask them in the same order.
    """

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = 0.0

    def __call__(self, candidates: Sequence[L]) -> Pick[L]:
        """Prepare for these candidates; those who were here before go on from where they are."""

        def pick(random: Random, _key: RequestKey | None) -> L:
            while unplaced:
                one = unplaced.pop()
                one.turn = self._at + (1 - random()) * _step(one)
            one = min(candidates, key=_turn)
            self._at = max(self._at, one.turn)
            one.turn = self._at + _step(one)
            return one

        unplaced = []
        for one in candidates:
            if not one.turn or one.turn + _step(one) < self._at:
                unplaced.append(one)
            else:
                one.turn = max(one.turn, self._at)
        return pick


def _step(one: Loaded) -> float:
    return 1 / (one.weight or 1)


_turn = attrgetter("turn")


def weights_of(candidates: Sequence[Loaded]) -> list[float]:
    """List the weights; all equal where all are 0."""
    weights = [one.weight for one in candidates]
    return weights if any(weights) else [1.0] * len(weights)


def _only(one: L) -> Pick[L]:
    def pick(_random: Random, _key: RequestKey | None) -> L:
        return one

    return pick


def _p2c_by_weight(candidates: Sequence[L], weights: list[float]) -> Pick[L]:
    draw = _Draw(weights)

    def pick(random: Random, _key: RequestKey | None) -> L:
        first, second = draw.two(random)
        one, other = candidates[first], candidates[second]
        # To compare (in_flight + 1) / weight of both looks right and is not: whoever is idle and
        # heavy would always win, and a light one would get nothing until the heavy one is full.
        with_this_one = (other.in_flight + 1) * weights[first]
        return other if with_this_one <= one.in_flight * weights[second] else one

    return pick


def _wait_s(one: Loaded, lightness: float) -> float:
    if not one.latency_s:
        return inf if one.in_flight else 0.0
    return one.latency_s * (1 + one.in_flight * lightness)


class _Draw:
    """Draws of indices by weight, all of which are more than 0."""

    __slots__ = ("_bounds", "_last", "_weights")

    def __init__(self, weights: list[float]) -> None:
        self._weights = weights
        self._bounds = list(accumulate(weights))
        self._last = len(weights) - 1

    def one(self, random: Random) -> int:
        # The sum of floats may be a little more than the last of them is ever compared with.
        return min(bisect(self._bounds, random() * self._bounds[-1]), self._last)

    def two(self, random: Random) -> tuple[int, int]:
        """Draw one, and one of the others; twice the same where there is only one."""
        first = self.one(random)
        its_own = self._weights[first]
        at = random() * (self._bounds[-1] - its_own)
        if at >= self._bounds[first] - its_own:
            at += its_own
        return first, min(bisect(self._bounds, at), self._last)
