"""How many requests at once a service can take, found out from how long its answers take.

As long as latency stays near what it is when the service is not crowded, the limit grows; when it
rises, requests wait for each other somewhere in there, and the limit falls until they do not. What
is compared is measured on all traffic, all the time: nothing is held back to measure with, and an
idle service changes nothing (after Netflix' concurrency-limits, Gradient2).

    gradient   =  2 x uncrowded latency / latency of late, between 1/2 and 1
    next limit =  limit x gradient  +  square root of the limit   (room for a small queue)
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
_SAMPLES: Final = 10
_WINDOW_S: Final = 0.25
# The uncrowded latency follows what is measured: down at once, up slowly. While the limit is in use
# it takes ten minutes to double, or else a service that is drowning would come to look normal.
_DRIFT_UP: Final = 0.05
_DRIFT_UP_CROWDED: Final = 1.5e-4


class AdaptiveLimit:
    """The limit of one service, `limit` at any time. All times are monotonic seconds.

    `most` bounds it from above.
    """

    __slots__ = (
        "_from_s",
        "_limit",
        "_most",
        "_most_in_flight",
        "_samples",
        "_sum_s",
        "_uncrowded_s",
    )

    def __init__(self, most: int = MOST_LIMIT) -> None:
        self._most = max(most, LEAST_LIMIT)
        self._limit = float(min(FIRST_LIMIT, self._most))
        self._uncrowded_s = 0.0
        self._from_s = float("-inf")
        self._samples = 0
        self._sum_s = 0.0
        self._most_in_flight = 0

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.limit}, {self._uncrowded_s * 1000:.1f} ms uncrowded>"

    @property
    def limit(self) -> int:
        """How many requests there may be at once."""
        return int(self._limit)

    def answered(self, latency_s: float, in_flight: int, now_s: float) -> None:
        """Hear how long an answer took, and how many requests were in hand then."""
        self._samples += 1
        self._sum_s += latency_s
        self._most_in_flight = max(self._most_in_flight, in_flight)
        if self._samples >= _SAMPLES and now_s - self._from_s >= _WINDOW_S:
            self._adjust(self._sum_s / self._samples)
            self._from_s = now_s
            self._samples, self._sum_s, self._most_in_flight = 0, 0.0, 0

    def timed_out(self) -> None:
        """Hear that an answer did not come in time: there is too much already."""
        self._limit = max(self._limit * _STEP_DOWN, LEAST_LIMIT)

    def _adjust(self, latency_s: float) -> None:
        is_crowded = self._most_in_flight * 2 >= self._limit
        uncrowded_s = self._uncrowded_s
        if not uncrowded_s or latency_s < uncrowded_s:
            self._uncrowded_s = latency_s
        else:
            drift = _DRIFT_UP_CROWDED if is_crowded else _DRIFT_UP
            self._uncrowded_s += (latency_s - uncrowded_s) * drift
        if not is_crowded:
            return  # nobody knows how it would be with more
        ratio = _TOLERANCE * self._uncrowded_s / latency_s if latency_s else 1.0
        gradient = min(max(ratio, 0.5), 1.0)
        wanted = self._limit * gradient + sqrt(self._limit)
        limit = self._limit + (wanted - self._limit) * _SHARE_OF_NEW
        self._limit = min(max(limit, LEAST_LIMIT), self._most)
