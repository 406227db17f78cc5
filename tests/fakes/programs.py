"""Where the real programs are that some tests need; without one its tests are skipped, loudly.

The rule: in CI a missing program is a failure, so that nothing goes untested there unnoticed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def find_program(name: str, *, fetch: str) -> Path:
    """Find it at GATEWAY_TEST_<NAME>, else in .cache/servers, else on PATH; or skip the test.

    `fetch` is the command that puts it into .cache/servers.
    """
    stated = os.environ.get(f"GATEWAY_TEST_{name.upper()}")
    candidates = [stated] if stated else [ROOT / ".cache/servers" / name, shutil.which(name)]
    for candidate in candidates:
        if candidate is not None and os.access(candidate, os.X_OK):
            return Path(candidate)
    message = f"NO REAL {name.upper()}: run {fetch}, or set GATEWAY_TEST_{name.upper()}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
