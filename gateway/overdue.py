"""The last bound on the way out: a process that was told to stop ends, whatever still runs in it.

An app of this process may ignore that its task was cancelled, or stop the loop, and a call that
blocks a thread cannot be interrupted at all. Each of them would keep the process from ending until
somebody kills it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable

import structlog

_log = structlog.get_logger()

# How much longer than its drain may take the process may take to end; a grace period is longer.
END_SLACK_S = 15.0
# Of that: apps of this process, tasks and threads, once no client is left.
END_WITHIN_S = 12.0
# After a second signal: nobody who sends one wants to wait.
HURRY_WITHIN_S = 2.0
_MOST_NAMED = 10


def end_within(timeout_s: float, flush: Callable[[], object], *, exit_code: int) -> None:
    """End this process with `exit_code` unless it has ended by itself in time.

    To be called in the loop, of which nothing is needed later: it may be what hangs. `flush` is
    called before the end, so that the log says why.
    """
    timer = threading.Timer(
        timeout_s, _end, (timeout_s, asyncio.get_running_loop(), flush, exit_code)
    )
    timer.daemon = True
    timer.name = "end_within"
    timer.start()


def _end(
    timeout_s: float,
    loop: asyncio.AbstractEventLoop,
    flush: Callable[[], object],
    exit_code: int,
) -> None:
    tasks: list[str] = []
    with contextlib.suppress(RuntimeError):  # the loop may be at work on them after all
        tasks = sorted(one.get_name() for one in asyncio.all_tasks(loop))
    threads = sorted(one.name for one in threading.enumerate() if not one.daemon)
    _log.error(
        "end_overdue",
        timeout_s=timeout_s,
        tasks=tasks[:_MOST_NAMED],
        threads=threads[:_MOST_NAMED],
    )
    flush()
    os._exit(exit_code)
