"""The command: `python -m benchmarks.sim`; STORY names the stories to play, DOCS=1 writes of them.

Without STORY all are played, and docs/resilience.md is written.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from benchmarks.__main__ import chosen
from benchmarks.report import aligned
from benchmarks.sim.page import table, write
from benchmarks.sim.stories import STORIES

_DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    """Play, and say what came of it; return the exit status."""
    wanted = os.environ.get("STORY", "")
    try:
        stories = chosen(STORIES, wanted)
    except ValueError as error:
        print(f"make sim: {error}", file=sys.stderr)
        return 2
    played = {}
    for story in stories:
        began_s = time.monotonic()
        played[story] = story.play()
        print(f"{story.key}: {time.monotonic() - began_s:.1f} s", file=sys.stderr)
    print("\n".join(aligned(list(table(played)))))
    if not wanted or os.environ.get("DOCS"):
        write(played, _DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
