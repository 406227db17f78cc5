"""Runs another program for as long as its own standard input is open.

`python -m gateway.demo.guard PROGRAM ARGUMENT…` is for programs that would outlive whoever started
them. It ends when the program ends, with the same exit code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

_STOP_WITHIN_S = 2.0


def guard(command: list[str]) -> None:
    """Run the command, and end it when standard input or this process ends."""
    signal.signal(signal.SIGTERM, _leave)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 -- its whole purpose
    threading.Thread(target=_end_with, args=(program,), daemon=True).start()
    try:
        while os.read(sys.stdin.fileno(), 1024):
            pass
    finally:
        program.terminate()
        try:
            program.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def _end_with(program: subprocess.Popen[bytes]) -> None:
    # The main thread is waiting for input and cannot be woken in any other way.
    os._exit(abs(program.wait()))


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    guard(sys.argv[1:])
