"""What the figures come to: medians, and ratios that were taken within a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.sample import Sample

METRICS = (
    *("cost", "rate", "p50_us", "p99_us", "rss_bytes", "ready_s", "busy", "count"),
    "bytes_per_s",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose figure, at which work, and which one: a name of METRICS."""

    peer: str
    work: str
    metric: str = "cost"


@dataclass(frozen=True, slots=True)
class Summary:
    """All samples, asked about."""

    samples: Sequence[Sample]

    def figures(self, place: Place) -> dict[int, float]:
        """Give the figures at a place by round; empty where nobody measured."""
        found = {
            one.round: getattr(one, place.metric)
            for one in self.samples
            if (one.peer, one.work) == (place.peer, place.work)
        }
        return {number: value for number, value in found.items() if value is not None}

    def median(self, place: Place) -> float | None:
        """Give the median of all rounds, None where there is no figure."""
        values = self.figures(place).values()
        return median(values) if values else None

    def longest(self, place: Place) -> float | None:
        """Give the highest of all rounds, None where there is no figure."""
        return max(self.figures(place).values(), default=None)

    def ratio(self, over: Place, under: Place) -> float | None:
        """Give the median of the ratios within each round, None where there is none.

        A moment in which the machine was slow is in both figures of its round.
        """
        above, below = self.figures(over), self.figures(under)
        ratios = [above[number] / below[number] for number in above if below.get(number)]
        return median(ratios) if ratios else None

    def peers(self, work: str) -> list[str]:
        """Name the peers that have figures at a work, in the order in which they came."""
        return list(dict.fromkeys(one.peer for one in self.samples if one.work == work))

    def wrong(self) -> list[str]:
        """Say who answered wrongly."""
        return [
            f"{one.peer}, {one.work}, round {one.round + 1}: {one.wrong} of {one.count} went wrong"
            for one in self.samples
            if one.wrong
        ]
