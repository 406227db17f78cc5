"""A closed loop by `wrk`: each connection asks again as soon as its answer is there.

The requests are made before; for each one wrk only takes the next from a list.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.outcome import Outcome
from benchmarks.requests import Request

_GRACE_S = 15.0
_SCRIPT = """
local requests = {
%s
}
local last = 0

-- Told to each thread's own state, so that threads start at different places.
local threads = 0
function setup(thread)
  thread:set("first", threads * 97)
  threads = threads + 1
end

function init(args)
  last = first %% #requests
end

function request()
  last = last %% #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  local wrong = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"count": %%d, "seconds": %%.6f, "wrong": %%d, "bytes": %%d, "p50_us": %%d, "p99_us": %%d}\\n',
    summary.requests, summary.duration / 1e6, wrong, summary.bytes,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Where, with what script, over how many connections."""

    url: str
    script: Path
    connections: int

    def run(self, seconds: float) -> Outcome:
        """Ask for so long (whole seconds, at least one); raises RuntimeError if wrk fails."""
        command = [
            *("wrk", "-t1", f"-c{self.connections}", f"-d{max(round(seconds), 1)}"),
            *("--timeout", "5s", "-s", str(self.script), self.url),
        ]
        limit_s = seconds + _GRACE_S
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit_s)
        if done.returncode:
            raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
        return Outcome.read(done.stdout)


def write_script(path: Path, requests: Sequence[Request]) -> Path:
    """Write the script that wrk runs."""
    # A string of JSON is one of Lua too, as long as it is plain ASCII.
    texts = (json.dumps(bytes(request).decode("ascii")) for request in requests)
    path.write_text(_SCRIPT % ",\n".join(texts), encoding="ascii")
    return path
