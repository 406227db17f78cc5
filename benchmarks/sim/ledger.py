"""What happened, counted: by tenths of a second, by instance, by gateway.

Requests are counted where they began, whenever they end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from benchmarks.sim.instance import PlayedInstance, State
from gateway.proxy.ending import Ending

BINS_IN_S = 10
_FIRST_BAD = 500


class Ejection(NamedTuple):
    """A gateway began to leave an instance alone: its Breaker opened, or the registry said so."""

    at_s: float
    gateway: int
    key: str


class Ledger:
    """All that was counted; of Counters by bin, bin n begins after n tenths of a second.

    Those by pair are of a gateway and an instance: `vain` are attempts that began while the
    instance was not well, `failed` all that failed, `openings` how often the Breaker opened, and
    `on_their_way` the attempts that it could not call back then.
    `lost` are requests that failed for their clients, by method, `reasons` why.
    """

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()
        self.good: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.sendings: Counter[int] = Counter()
        self.attempts_at: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.vain: Counter[tuple[int, str]] = Counter()
        self.failed: Counter[tuple[int, str]] = Counter()
        self.openings: Counter[tuple[int, str]] = Counter()
        self.on_their_way: Counter[tuple[int, str]] = Counter()
        self.ejections: list[Ejection] = []
        self.lost: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Ledger {self.requests.total()} requests, {self.attempts.total()} attempts>"

    def attempted(self, gateway: int, instance: PlayedInstance, now_s: float) -> None:
        """Count an attempt at an instance."""
        number = bin_of(now_s)
        self.attempts[number] += 1
        self.attempts_at[instance.key][number] += 1
        if instance.state is not State.UP:
            self.vain[gateway, instance.key] += 1

    def sent(self, now_s: float) -> None:
        """Count a request that left for an instance: an attempt that found a connection."""
        self.sendings[bin_of(now_s)] += 1

    def opened(self, gateway: int, key: str, now_s: float, *, in_flight: int) -> None:
        """Count a Breaker that opened while so many attempts were on their way."""
        self.openings[gateway, key] += 1
        self.on_their_way[gateway, key] += in_flight
        self.ejections.append(Ejection(now_s, gateway, key))

    def settled(self, gateway: int, exchange: Ending) -> None:
        """Count a request that is over."""
        number = bin_of(exchange.request.started_at_s)
        self.requests[number] += 1
        if 0 < exchange.status < _FIRST_BAD:
            self.good[number] += 1
        else:
            self.lost[exchange.request.method.decode()] += 1
            failure = exchange.failure
            self.reasons[str(exchange.status) if failure is None else failure.value] += 1
        if exchange.is_routed:
            for attempt in exchange.attempts.failed:
                self.failed[gateway, attempt.member.instance.key] += 1


def bin_of(at_s: float) -> int:
    """Tell which bin an instant is in."""
    return int(at_s * BINS_IN_S)
