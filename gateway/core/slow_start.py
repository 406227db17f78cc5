"""An instance that is new, or back, gets less than its share for a while: its caches are cold.

The share grows in a straight line from a tenth to the whole. Only those that are new beside others
start slowly: where most of a fleet is new, the few that are not would have to carry everything. So
no established instance ever gets more than twice its even share because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from gateway.core.breaker import Breaker
from gateway.core.model import Instance

LEAST_SHARE = 0.1


class Starting(Protocol):
    """Something that may start slowly: from `serves_since_s` on (monotonic), None if it does not.

    `weight` is the one in use.
    """

    instance: Instance
    breaker: Breaker
    weight: float
    serves_since_s: float | None


def weigh(tier: Sequence[Starting], *, now_s: float, slow_start_s: float | None) -> bool:
    """Set the weights that are in use now; True while any of them will change with time.

    `slow_start_s` None means that nobody starts slowly.
    """
    shares = [
        1.0
        if slow_start_s is None or one.serves_since_s is None
        else share_at(now_s - one.serves_since_s, slow_start_s)
        for one in tier
    ]
    # An established one whose Breaker is open carries nothing.
    least = least_share(
        (one.instance.weight, share)
        for one, share in zip(tier, shares, strict=True)
        if one.breaker.would_admit(now_s)
    )
    for one, share in zip(tier, shares, strict=True):
        one.weight = one.instance.weight * max(share, least)
    return any(share < 1 for share in shares)


def share_at(age_s: float, slow_start_s: float) -> float:
    """Tell which share of its weight an instance has that began to serve so long ago."""
    return min(1.0, max(LEAST_SHARE, age_s / slow_start_s))


def least_share(weights_and_shares: Iterable[tuple[float, float]]) -> float:
    """Tell which share everybody gets at least, so that the established are not overloaded.

    Those with a share of 1 are established. With a weight of E together, and N for those that are
    starting, each of the established gets (E + N) / (E + share x N) times its even share; that is 2
    at most from (N - E) / 2N on.
    """
    established = starting = 0.0
    for weight, share in weights_and_shares:
        if share < 1:
            starting += weight
        else:
            established += weight
    return (starting - established) / (2 * starting) if starting > established else 0.0
