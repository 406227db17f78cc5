"""What a load says when it is over."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How much was done in how long; `wrong` counts errors and answers other than expected.

    `bytes` is what came back, heads included. Latencies are None where nobody looked.
    """

    count: int
    seconds: float
    wrong: int
    bytes: int = 0
    p50_us: float | None = None
    p99_us: float | None = None
    longest_us: float | None = None

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, printed: str) -> Outcome:
        """Read what was printed as the last line; raises ValueError for anything else."""
        try:
            return cls(**json.loads(printed.rstrip().rpartition("\n")[2]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"no outcome in {printed[-500:]!r}") from error


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Find the smallest of at least one value that so many percent do not exceed."""
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]
