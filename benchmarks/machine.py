"""On what, of what and when the figures were taken."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.tools import versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What must be known beside any figure. `load` is that of the machine before the start."""

    date: str
    commit: str
    cpu: str
    cores: int
    kernel: str
    load: float
    seconds: float
    rounds: int
    versions: dict[str, str]


def circumstances(*, seconds: float, rounds: int, load: float) -> Circumstances:
    """Look at the machine, the programs and the working copy."""
    return Circumstances(
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        commit=_commit(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        kernel=platform.release(),
        load=load,
        seconds=seconds,
        rounds=rounds,
        versions=versions(),
    )


def _commit() -> str:
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "gateway")
    return f"{commit} with changes" if changed else commit


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def _cpu() -> str:
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"model name\s*: (.+)", told)
    return found[1] if found else platform.machine()
