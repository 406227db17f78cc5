"""One figure, with all that was seen beside it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.load.outcome import Outcome
from benchmarks.works import Unit, Work

_GIB = 2**30
_KB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A peer at a work in a round.

    `cost` is in the work's unit. `busy` is how much of its core the proxy used: well below 1, the
    rate is not its highest, because load or instances had no time. Latencies are None where there
    are none. `bytes_per_s` is what else went over its connections, where the load counts it.
    """

    peer: str
    work: str
    round: int
    cost: float
    rate: float
    p50_us: float | None
    p99_us: float | None
    rss_bytes: int
    ready_s: float
    busy: float
    bytes_per_s: float
    count: int
    wrong: int

    @classmethod
    def of(  # noqa: PLR0913 -- they are all different things
        cls,
        peer: str,
        work: Work,
        number: int,
        *,
        outcome: Outcome,
        cpu_s: float,
        rss_bytes: int,
        ready_s: float,
        grown_bytes: int,
    ) -> Sample:
        """Reckon the figures; raises ValueError where nothing was done."""
        if not outcome.count:
            raise ValueError("nothing was answered")
        return cls(
            peer=peer,
            work=work.key,
            round=number,
            cost=_cost(work, outcome, cpu_s, grown_bytes),
            rate=outcome.count / outcome.seconds,
            p50_us=outcome.p50_us,
            p99_us=outcome.p99_us,
            rss_bytes=rss_bytes,
            ready_s=ready_s,
            busy=cpu_s / outcome.seconds,
            bytes_per_s=outcome.bytes / outcome.seconds,
            count=outcome.count,
            wrong=outcome.wrong,
        )


def _cost(work: Work, outcome: Outcome, cpu_s: float, grown_bytes: int) -> float:
    if work.unit is Unit.CONNECTION:
        return grown_bytes / outcome.count / _KB
    if work.unit is Unit.GIB:
        return cpu_s * 1e3 / (outcome.bytes / _GIB)
    if outcome.longest_us is not None:
        return outcome.longest_us / 1e3
    return cpu_s * 1e6 / outcome.count
