"""A fixed rate by `h2load`, for latencies: a slow answer does not make the next request wait.

Each client asks at most 50 times a second, so that requests come one by one and not in bunches.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.outcome import Outcome, percentile
from benchmarks.requests import HOST, Request

_RATE_OF_A_CLIENT = 50
_OK = range(200, 300)
_US_PER_S = 1e6
_LATE, _GRACE_S = 3, 10.0


@dataclass(frozen=True, slots=True)
class FixedRate:
    """Where, with what requests, and a folder for what h2load reads and writes."""

    port: int
    requests: Sequence[Request]
    folder: Path

    def run(self, per_s: float, *, seconds: float, warm_up_s: float) -> Outcome:
        """Ask at this rate; raises RuntimeError if h2load fails.

        The number of requests is given and not a time: with a time h2load may never end (1.52).
        """
        targets, log = self.folder / "targets", self.folder / "h2load.log"
        base = f"http://127.0.0.1:{self.port}"
        lines = (f"{base}{request.target}\n" for request in self.requests)
        targets.write_text("".join(lines), encoding="ascii")
        log.unlink(missing_ok=True)
        clients = max(math.ceil(per_s / _RATE_OF_A_CLIENT), 1)
        fields = [f":authority: {HOST}", *self.requests[0].fields]
        command = [
            *("h2load", "--h1", "-t1", "-m1", f"-c{clients}", f"--rps={per_s / clients:.3f}"),
            *(f"-n{round(per_s * (seconds + warm_up_s))}", f"--log-file={log}"),
            *(word for field in fields for word in ("-H", field)),
            *("-i", str(targets)),
        ]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=_LATE * (seconds + warm_up_s) + _GRACE_S,
        )
        if done.returncode:
            raise RuntimeError(f"h2load: {done.stderr or done.stdout}")
        with log.open(encoding="ascii") as rows:
            return read_log(rows, warm_up_s=warm_up_s)


def read_log(rows: Iterable[str], *, warm_up_s: float) -> Outcome:
    """Read h2load's log: start (µs since the epoch), status (-1 for none), duration (µs).

    Latencies are those of requests that began later than `warm_up_s` after the first one. Raises
    ValueError where there are none.
    """
    entries = [tuple(int(value) for value in row.split("\t")[:3]) for row in rows]
    starts = [start for start, _, _ in entries] or [0]
    warm_us = min(starts) + warm_up_s * _US_PER_S
    took = sorted(duration for start, _, duration in entries if start >= warm_us)
    if not took:
        raise ValueError("h2load has logged no request")
    return Outcome(
        count=len(entries),
        seconds=(max(starts) - min(starts)) / _US_PER_S,
        wrong=sum(status not in _OK for _, status, _ in entries),
        p50_us=percentile(took, 50),
        p99_us=percentile(took, 99),
    )
