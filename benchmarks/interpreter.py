"""Which Python runs what is measured: the fastest that is here.

Builds of one version differ by a third in speed. Distributions and the official images optimize
theirs with a profile; one that was compiled by hand often is not. Users run the former, so that is
what should be measured, and which one it was is said.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable

_OLDEST = (3, 11)
_PROBE = f"""
import sys, time
if sys.version_info < {_OLDEST}: sys.exit(1)
def work():
    found = {{}}
    for number in range(5000):
        found[b"%d" % number] = (number, str(number))
    return len(found)
def timed():
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
print(min(timed() for _ in range(60)))
"""


def fastest() -> str:
    """Find the fastest Python among those that one would try; our own if it is the only one."""
    own = str(getattr(sys, "_base_executable", sys.executable))
    listed = (own, shutil.which("python3"), "/usr/bin/python3", "/usr/local/bin/python3")
    return _fastest_of(dict.fromkeys(one for one in listed if one)) or own


def _fastest_of(listed: Iterable[str]) -> str | None:
    times = {one: took_s for one in listed if (took_s := _probe(one)) is not None}
    return min(times, key=lambda one: times[one], default=None)


def _probe(python: str) -> float | None:
    """Tell how long a small piece of work takes, None where it cannot be run."""
    try:
        done = subprocess.run([python, "-c", _PROBE], check=False, capture_output=True, text=True)
    except OSError:
        return None
    return float(done.stdout) if done.returncode == 0 else None
