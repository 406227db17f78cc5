"""Told on both loops: that of `gateway run`, and asyncio's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test on uvloop too, where there is one."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415 -- there is none on Windows

        factories["uvloop"] = uvloop.new_event_loop
    return factories
