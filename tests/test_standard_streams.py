"""What the program does when it is started without standard streams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, sys
import gateway.__main__ as program
program.open_standard_streams()
print("out"); print("err", file=sys.stderr)
first = os.open(os.devnull, os.O_RDONLY)
with open(sys.argv[1], "w") as said:
    json.dump({"first": first, "read": sys.stdin.read()}, said)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_null_device_stands_in_for_a_closed_stream(tmp_path: Path, closed: str) -> None:
    """So that no file or socket gets its number."""
    said = tmp_path / "said"
    subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", PROGRAM, str(said)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    found = json.loads(said.read_text(encoding="utf-8"))
    assert found["first"] > 2
    assert found["read"] == ""
