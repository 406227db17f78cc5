"""Where the real Consul program is. Without it these tests are skipped, loudly; in CI they fail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def consul_program() -> Path:
    """Find Consul: GATEWAY_TEST_CONSUL, else .cache/servers of this repository, else PATH."""
    root = Path(__file__).parents[2]
    stated = os.environ.get("GATEWAY_TEST_CONSUL")
    candidates = [stated] if stated else [root / ".cache/servers/consul", shutil.which("consul")]
    for candidate in candidates:
        if candidate is not None and os.access(candidate, os.X_OK):
            return Path(candidate)
    message = "NO REAL CONSUL: run scripts/get-servers .cache/servers, or set GATEWAY_TEST_CONSUL"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
