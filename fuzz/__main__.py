"""Run each target for a while: `python -m fuzz 60` takes a minute in all.

Each has a process of its own, because libFuzzer ends the one that it runs in. An input that breaks
a law is printed, and kept as `crash-…` in the working directory; the exit status is then 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz import answers, requests
from fuzz.target import WORDS, case

TARGETS = {"fuzz.requests": requests.SEEDS, "fuzz.answers": answers.SEEDS}
LONGEST_CASE_BYTES = 800


def main(total_s: int) -> int:
    """Run all targets, `total_s` seconds together; return the exit status."""
    statuses = [run(name, total_s // len(TARGETS)) for name in TARGETS]
    return max(statuses)


def run(name: str, time_s: int) -> int:
    """Run one target from its seeds; return 0 if every law held."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, words = Path(folder, "corpus"), Path(folder, "words")
        corpus.mkdir()
        for number, seed in enumerate(TARGETS[name]):
            (corpus / f"seed-{number}").write_bytes(case(seed))
        words.write_text("\n".join(f'"{word}"' for word in WORDS), encoding="ascii")
        options = [f"-dict={words}", f"-max_total_time={time_s}", f"-max_len={LONGEST_CASE_BYTES}"]
        command = [sys.executable, "-m", name, "-timeout=5", "-verbosity=0", *options, str(corpus)]
        return int(subprocess.run(command, check=False).returncode != 0)  # noqa: S603 -- ourselves


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
