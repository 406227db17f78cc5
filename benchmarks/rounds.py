"""Rounds in which every peer has its turn at every work, for as long as there is time.

A peer that does not do a work, or fails at it, is told and left out of that work from then on.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.check import DoesLessError
from benchmarks.measure import Bench, measure, prove_failover
from benchmarks.peers import Peer
from benchmarks.processes import EndedEarlyError
from benchmarks.sample import Sample
from benchmarks.works import Work

_PROVED_AT = "browser"
_FAILURES = (
    *(DoesLessError, EndedEarlyError, OSError, RuntimeError, ValueError),
    subprocess.TimeoutExpired,
)


@dataclass(slots=True)
class Results:
    """All figures, and what went wrong with whom."""

    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Who does what, in how many rounds at most, and until when (monotonic)."""

    works: Sequence[Work]
    peers: Sequence[Peer]
    rounds: int
    until_s: float

    def turns(self, number: int) -> Iterator[tuple[Peer, Work]]:
        """Give the turns of a round: work by work, peers in another order each time."""
        order = random.Random(number)
        for work in self.works:
            if number < work.rounds:
                peers = [peer for peer in self.peers if work.key in peer.works]
                yield from ((peer, work) for peer in order.sample(peers, len(peers)))


def run(plan: Plan, bench: Bench) -> Results:
    """Measure until the rounds are done or time is up; the first round is always whole."""
    results = Results()
    failed: set[tuple[str, str]] = set()
    for number in range(plan.rounds):
        for peer, work in plan.turns(number):
            if number and time.monotonic() > plan.until_s:
                return results
            if (peer.key, work.key) in failed:
                continue
            try:
                results.samples.append(_turn(peer, work, bench, number))
            except _FAILURES as error:
                failed.add((peer.key, work.key))
                results.notes.append(f"{peer.key}, {work.key}: {error}")
                _say(results.notes[-1])
        results.rounds = number + 1
    return results


def _turn(peer: Peer, work: Work, bench: Bench, number: int) -> Sample:
    if work.key == _PROVED_AT and number == 0 and peer.fails_over:
        prove_failover(peer, work, bench)
    sample = measure(peer, work, bench, number)
    wrong = f", {sample.wrong} WRONG" if sample.wrong else ""
    _say(
        f"round {number + 1}  {work.key:12} {peer.key:10} {sample.cost:10.2f} {work.unit.value:14}"
        f" {sample.rate:9,.0f}/s  busy {sample.busy:.0%}{wrong}"
    )
    return sample


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
