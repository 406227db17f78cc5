"""The same key goes to the same candidate, on every gateway: rendezvous hashing with bounded load.

Each candidate has a score for each key, and the highest score wins (Thaler and Ravishankar 1998,
weights after Schindelhauer and Schomaker 2005). Whoever leaves moves only the keys that it had,
each to the candidate that was second for it, and whoever comes takes keys from all alike. No table
is made, so all gateways agree without a word.

Where a few keys are very busy, their candidate may get so much more than the others that the next
one takes what is over the bound (Mirrokni et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from operator import itemgetter
from typing import Protocol, TypeVar

from gateway.core.balancing import Loaded, Pick, Random, RequestKey, p2c, weights_of

BOUND = 1.25
LEAST_BOUND = 8

_MASK = (1 << 64) - 1
_ODD_1 = 0xBF58476D1CE4E5B9
_ODD_2 = 0x94D049BB133111EB
_OTHER_SEED = 0x9E3779B97F4A7C15


class Seeded(Loaded, Protocol):
    """A candidate with a hash of its own identity."""

    seed: int


S = TypeVar("S", bound=Seeded)


def hash64(value: bytes) -> int:
    """Hash anything to 64 bits, the same in every process and version."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")


def mixed(key: int, seed: int) -> int:
    """Make other 64 bits of two: the finalizer of SplitMix64 (Steele et al. 2014)."""
    bits = key ^ seed
    bits = (bits ^ (bits >> 30)) * _ODD_1 & _MASK
    bits = (bits ^ (bits >> 27)) * _ODD_2 & _MASK
    return bits ^ (bits >> 31)


def fraction(key: int) -> float:
    """Make a number in [0, 1) of a key that says nothing of its scores."""
    return (mixed(key, _OTHER_SEED) >> 11) * 2.0**-53


def rendezvous(candidates: Sequence[S]) -> Pick[S]:
    """Pick the candidate with the highest score; without a key the less loaded of two."""
    without_key = p2c(candidates)
    weights = weights_of(candidates)
    score = _equal_scores if len(set(weights)) == 1 else _weighted_scores
    share = BOUND / sum(weights)
    shares = [share * weight for weight in weights]

    def pick(random: Random, key: RequestKey | None) -> S:
        if key is None or key.hash is None:
            return without_key(random, key)
        scores = score(key.hash, candidates)
        best = scores.index(max(scores))
        total = 1 + sum(one.in_flight for one in candidates)
        if candidates[best].in_flight < max(LEAST_BOUND, shares[best] * total):
            return candidates[best]
        return candidates[_next_with_room(candidates, scores, shares, total)]

    return pick


def _equal_scores(key: int, candidates: Sequence[Seeded]) -> list[float]:
    return [mixed(key, one.seed) for one in candidates]


def _weighted_scores(key: int, candidates: Sequence[Seeded]) -> list[float]:
    # -w / ln(u) with u in (0, 1): the chance to be the highest is the share of the weight.
    return [
        one.weight / -log((mixed(key, one.seed) + 0.5) * 2.0**-64 * (1 - 2.0**-53))
        for one in candidates
    ]


def _next_with_room(
    candidates: Sequence[Seeded], scores: list[float], shares: list[float], total: int
) -> int:
    """Find the highest score with room; somebody has, for not all can be over the mean."""
    ranked = sorted(enumerate(scores), key=itemgetter(1), reverse=True)
    return next(
        at for at, _ in ranked if candidates[at].in_flight < max(LEAST_BOUND, shares[at] * total)
    )
