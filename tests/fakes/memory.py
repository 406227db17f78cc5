"""How much memory this process uses, for tests that say that something is bounded."""

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


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
