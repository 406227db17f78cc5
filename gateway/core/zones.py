"""Instances in the gateway's own zone first, but never more for them than for all others.

The rule: the zones that can serve are taken to get equal parts of all requests. A zone keeps its
own requests for as long as its instances are no more loaded by them than the instances of all zones
are on average, and sends what is over to the others, in proportion to their weights:

    local share = min(1, zones that can serve x weight of those here / weight of all)

With three zones of three instances each, all stays local; with one of the three here sick, a
quarter goes elsewhere; with none here, all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from gateway.core.balancing import Balancer, Pick, Random, RequestKey, weights_of
from gateway.core.hashing import Seeded, fraction


class Zoned(Seeded, Protocol):
    """A candidate that is somewhere: `zone` None where that is not known."""

    @property
    def zone(self) -> str | None:
        """The name of its zone."""
        ...


Z = TypeVar("Z", bound=Zoned)


def local_share(candidates: Sequence[Zoned], zone: str) -> float:
    """Tell which share of the requests stays in `zone`, from 0 to 1; see the rule above.

    Candidates whose zone is not known count for what they can carry elsewhere, not as a zone.
    """
    weights = weights_of(candidates)
    here = sum(weight for one, weight in zip(candidates, weights, strict=True) if one.zone == zone)
    zones = {one.zone for one in candidates if one.zone is not None}
    return min(1.0, len(zones) * here / sum(weights))


def prefer_zone(balancer: Balancer[Z], zone: str) -> Balancer[Z]:
    """Make a Balancer that stays in `zone` with as much as belongs there.

    A key that is hashed is here or elsewhere by what it is, not by chance.
    """

    def prepare(candidates: Sequence[Z]) -> Pick[Z]:
        local = [one for one in candidates if one.zone == zone]
        elsewhere = [one for one in candidates if one.zone != zone]
        if not local or not elsewhere:
            return balancer(candidates)
        share = local_share(candidates, zone)
        pick_local, pick_elsewhere = balancer(local), balancer(elsewhere)
        if share >= 1:
            return pick_local

        def pick(random: Random, key: RequestKey | None) -> Z:
            at = random() if key is None or key.hash is None else fraction(key.hash)
            return (pick_local if at < share else pick_elsewhere)(random, key)

        return pick

    return prepare
