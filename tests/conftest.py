"""How hard hypothesis tries: "quick", "soak" in `make soak`, "nightly" looks further.

The first two look at the same examples each time, so that a failure is one's own. Choose another
one with `pytest --hypothesis-profile=nightly`. There is no deadline for a single example: a busy
machine is not a bug, and pytest bounds each test anyway.
"""

from __future__ import annotations

import gc
import signal

import pytest
from hypothesis import settings

from tests import hanging

settings.register_profile("quick", max_examples=40, derandomize=True, deadline=None)
settings.register_profile("soak", max_examples=200, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=5000, deadline=None)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """End what hangs, and let programs that tests start have their signals also under nohup."""
    hanging.pytest_configure(config)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking all tests again and again.

    A whole collection of them takes up to half a second, which would fall into some test that
    measures time.
    """
    gc.collect()
    gc.freeze()
