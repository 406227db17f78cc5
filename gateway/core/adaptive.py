"""How many requests at once a service can take, found out from how long its answers take.

As long as latency stays near what it is when the service is not crowded, the limit grows; when it
rises, requests wait for each other somewhere in there, and the limit falls until they do not. What
is compared is measured on all traffic, all the time: nothing is held back to measure with, and an
idle service changes nothing (after Netflix' concurrency-limits, Gradient2).

    gradient   =  2 x uncrowded latency / latency of late, between 1/2 and 1
    next limit =  limit x gradient  +  square root of the limit   (room for a small queue)

Until there is a first sign of a crowd nobody knows how much room there is, and the limit grows by
half at a time: or a service with room for hundreds would have its start refused.

The latency of late is a median, for everywhere a few answers take a hundred times as long by chance
and a few never come; a crowd makes all of them wait. Of too few answers even a median is chance:
the fewer there are, the less is believed of them.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

FIRST_LIMIT: Final = 20
LEAST_LIMIT: Final = 4
MOST_LIMIT: Final = 10_000

_TOLERANCE: Final = 2.0
_SHARE_OF_NEW: Final = 0.2
_STEP_DOWN: Final = 0.9
_STEP_UP_AT_FIRST: Final = 1.5
_LATE_SHARE: Final = 0.5
_SURE_SAMPLES: Final = 50
_MOST_SAMPLES: Final = 250
_LEAST_SAMPLES: Final = 10
_WINDOW_S: Final = 0.25
_LONGEST_WINDOW_S: Final = 2.0
# The uncrowded latency follows what is measured: down soon, up slowly. While the limit is in use
# it takes ten minutes to double, or else a service that is drowning would come to look normal.
_DRIFT_UP: Final = 0.05
_DRIFT_UP_CROWDED: Final = 1.5e-4


class AdaptiveLimit:
    """The limit of one service, `limit` at any time. All times are monotonic seconds.

    `most` bounds it from above.
    """

    __slots__ = (
        "_ended",
        "_from_s",
        "_is_first_climb",
        "_late",
        "_latencies_s",
        "_limit",
        "_most",
        "_most_in_flight",
        "_uncrowded_s",
    )

    def __init__(self, most: int = MOST_LIMIT) -> None:
        self._most = max(most, LEAST_LIMIT)
        self._limit = float(min(FIRST_LIMIT, self._most))
        self._uncrowded_s = 0.0
        self._from_s = float("inf")
        self._latencies_s: list[float] = []
        self._most_in_flight = 0
        self._is_first_climb = True
        self._ended = 0.0
        self._late = 0.0

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.limit}, {self._uncrowded_s * 1000:.1f} ms uncrowded>"

    @property
    def limit(self) -> int:
        """How many requests there may be at once."""
        return int(self._limit)

    def answered(self, latency_s: float, in_flight: int, now_s: float) -> None:
        """Hear how long an answer took, and how many requests were in hand then."""
        latencies_s = self._latencies_s
        if len(latencies_s) < _MOST_SAMPLES:
            latencies_s.append(latency_s)
        self._ended += 1
        self._most_in_flight = max(self._most_in_flight, in_flight)
        self._from_s = min(self._from_s, now_s)
        passed_s = now_s - self._from_s
        is_enough = len(latencies_s) >= _SURE_SAMPLES or passed_s >= _LONGEST_WINDOW_S
        if is_enough and passed_s >= _WINDOW_S and len(latencies_s) >= _LEAST_SAMPLES:
            self._adjust()
            self._from_s = now_s
            self._latencies_s, self._most_in_flight = [], 0
            self._ended, self._late = self._ended / 2, self._late / 2

    def timed_out(self) -> None:
        """Hear that an answer did not come in time: if most do not, there is too much already."""
        self._ended += 1
        self._late += 1
        if self._late > self._ended * _LATE_SHARE:
            self._limit = max(self._limit * _STEP_DOWN, LEAST_LIMIT)
            self._is_first_climb = False

    def _adjust(self) -> None:
        count = len(self._latencies_s)
        latency_s = sorted(self._latencies_s)[count // 2]
        is_crowded = self._most_in_flight * 2 >= self._limit
        uncrowded_s = self._uncrowded_s or latency_s
        if latency_s < uncrowded_s:
            drift = min(count / _SURE_SAMPLES, 1.0)
        else:
            drift = _DRIFT_UP_CROWDED if is_crowded else _DRIFT_UP
        self._uncrowded_s = uncrowded_s + (latency_s - uncrowded_s) * drift
        if not is_crowded:
            return  # nobody knows how it would be with more
        ratio = _TOLERANCE * self._uncrowded_s / latency_s if latency_s else 1.0
        gradient = min(max(ratio, 0.5), 1.0)
        self._is_first_climb = self._is_first_climb and gradient == 1.0
        if self._is_first_climb:
            limit = self._limit * _STEP_UP_AT_FIRST
        else:
            wanted = self._limit * gradient + sqrt(self._limit)
            limit = self._limit + (wanted - self._limit) * _SHARE_OF_NEW
        self._limit = min(max(limit, LEAST_LIMIT), self._most)
