"""Ends a test that hangs, and says where: in each thread, and in each task that waits.

In place of what pytest-timeout would write: that knows no tasks, so of a coroutine that waits it
shows only the loop; and in a worker of pytest-xdist it is lost, because a worker's stdout is.
The limit is pytest-timeout's, in pyproject.toml or a mark.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import io
import os
import threading
from typing import Any, TextIO

import pytest
from pytest_timeout import is_debugging


class HangingTests:
    """Plugin: writes where a test hangs to the real stderr, and ends this process."""

    def __init__(self, stderr: TextIO) -> None:
        self._stderr = stderr
        self._timer: threading.Timer | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool:
        """Start the timer of a test."""
        self._timer = threading.Timer(settings.timeout, self._end, (item.nodeid, settings.timeout))
        self._timer.daemon = True
        self._timer.start()
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool:
        """Stop the timer: the test has ended."""
        if self._timer is not None:
            self._timer.cancel()
        return True

    def _end(self, name: str, timeout_s: float) -> None:
        if is_debugging():
            return
        try:
            print(f"\nHANGS: {name} has not ended after {timeout_s:g} s", file=self._stderr)
            faulthandler.dump_traceback(self._stderr, all_threads=True)
            print(stacks_of_tasks(), file=self._stderr, flush=True)
        finally:
            os._exit(1)


def stacks_of_tasks() -> str:
    """Say where each unfinished task of any loop waits."""
    lines = io.StringIO()
    for task in gc.get_objects():
        if issubclass(type(task), asyncio.Task) and not task.done():
            task.print_stack(file=lines)
    return lines.getvalue()


def pytest_configure(config: pytest.Config) -> None:
    """Register it. Nothing is captured yet, so 2 is what the user sees."""
    stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    config.add_cleanup(stderr.close)
    config.pluginmanager.register(HangingTests(stderr), "hanging-tests")
