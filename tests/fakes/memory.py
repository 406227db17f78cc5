"""How much memory a process uses, for tests that say that something is bounded."""

from __future__ import annotations

import gc
import os
from pathlib import Path


class GrowthOfMemory:
    """Looks at the resident memory, and keeps the largest growth since it was made."""

    def __init__(self) -> None:
        gc.collect()
        self._before_bytes = _resident_bytes()
        self.largest_bytes = 0

    def look(self) -> None:
        """Look now."""
        self.largest_bytes = max(self.largest_bytes, _resident_bytes() - self._before_bytes)


class PeakOfMemory:
    """The largest resident memory of another process since this was made, or since `begin`."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self.begin()

    def begin(self) -> None:
        """Forget the peak so far (proc_pid_clear_refs(5))."""
        (self._folder / "clear_refs").write_text("5", encoding="ascii")

    @property
    def peak_bytes(self) -> int:
        """The peak (VmHWM)."""
        return self._field("VmHWM")

    @property
    def now_bytes(self) -> int:
        """What it uses now (VmRSS)."""
        return self._field("VmRSS")

    def _field(self, name: str) -> int:
        lines = (self._folder / "status").read_text(encoding="ascii").splitlines()
        (kib,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
        return int(kib) * 1024


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
