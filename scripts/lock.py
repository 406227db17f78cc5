"""Write the lock files anew: what the image runs with, and what the tests run with.

Called by `make lock`. Both name each package once, with its version and the hashes of all its
files, for every system and every Python from 3.11 on. The versions of what runs are chosen first;
the tests get the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_COMPILE = (
    *("uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--upgrade", "--quiet", "--no-header"),
)
_HEAD = "# Written by `make lock`; see docs/operations.md#what-it-is-built-from\n"


def write(path: Path, *options: str) -> None:
    """Choose the versions, and write them to `path`."""
    program = Path(sys.executable).parent / _COMPILE[0]
    done = subprocess.run(  # noqa: S603 -- the program of our own environment
        [program, *_COMPILE[1:], *options], check=True, capture_output=True, text=True
    )
    path.write_text(_HEAD + done.stdout, encoding="utf-8")


def main() -> None:
    """Write `run.txt` and `dev.txt` into the folder that the argument names."""
    folder = Path(sys.argv[1])
    write(folder / "run.txt")
    write(folder / "dev.txt", "--group", "dev", "--constraint", str(folder / "run.txt"))


if __name__ == "__main__":
    main()
