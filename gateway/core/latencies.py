"""How long answers take, kept so small that a quantile of it can be asked for each request.

Latencies are counted in buckets whose bounds grow by a fifth, from 0.1 ms to over a minute; so a
quantile is right to within a tenth. Old ones fade: when so many have come, all counts are halved.
"""

from __future__ import annotations

from math import ceil, log
from typing import Final

_SHORTEST_S: Final = 1e-4
_GROWTH: Final = 1.2
_LOG_GROWTH: Final = log(_GROWTH)
_BUCKETS: Final = 80
_HALVED_AT: Final = 2000.0


class Latencies:
    """The latencies of late; `count` is how many there are, older ones counting less."""

    __slots__ = ("_counts", "count")

    def __init__(self) -> None:
        self.count = 0.0
        self._counts = [0.0] * _BUCKETS

    def __repr__(self) -> str:
        return f"<Latencies {self.count:.0f} counted>"

    def add(self, latency_s: float) -> None:
        """Count one, in seconds."""
        bucket = 0
        if latency_s > _SHORTEST_S:
            bucket = min(ceil(log(latency_s / _SHORTEST_S) / _LOG_GROWTH), _BUCKETS - 1)
        self._counts[bucket] += 1
        self.count += 1
        if self.count >= _HALVED_AT:
            self._counts = [count / 2 for count in self._counts]
            self.count /= 2

    def quantile_s(self, quantile: float) -> float:
        """Tell what this share of the latencies did not exceed; 0 while there are none."""
        wanted = quantile * self.count
        seen = 0.0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _SHORTEST_S * _GROWTH**bucket
        return 0.0
