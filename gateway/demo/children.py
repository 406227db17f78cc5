"""The child processes of the demo: started with a pipe as their input, and ended by it.

The one rule: each child ends when its input does, so none is left when the demo is killed; and none
gets the Ctrl-C that is meant for the demo, so the gateway can drain while they still answer.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_WITHIN_S = 15.0
_STOP_WITHIN_S = 3.0


class DemoError(Exception):
    """The demo cannot run; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A running sample instance on 127.0.0.1."""

    service: str
    name: str
    pid: int
    port: int


@contextmanager
def running_samples(names: Sequence[tuple[str, str]]) -> Iterator[tuple[Sample, ...]]:
    """Run one sample instance for each service and name; end them all in the end.

    Raises DemoError when one does not come up.
    """
    with _ending_all() as children:
        for service, name in names:
            children.append(_start_module("gateway.demo.sample", service, name))
        yield tuple(
            Sample(service=service, name=name, pid=child.pid, port=_told_port(child))
            for (service, name), child in zip(names, children, strict=True)
        )


@contextmanager
def running_guarded(command: Sequence[str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run another program under a guard, with what it says in a file; end it in the end."""
    with log.open("ab") as log_file, _ending_all() as children:
        children.append(_start_module("gateway.demo.guard", *command, output=log_file.fileno()))
        yield children[0]


def _start_module(
    module: str, *arguments: str, output: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 -- our own modules
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output == subprocess.PIPE else subprocess.STDOUT,
        start_new_session=True,
    )


def _told_port(child: subprocess.Popen[bytes]) -> int:
    assert child.stdout is not None
    patience = threading.Timer(_START_WITHIN_S, child.kill)
    patience.start()
    line = child.stdout.readline()
    patience.cancel()
    if not line:
        raise DemoError("a sample instance does not start")
    return int(line)


@contextmanager
def _ending_all() -> Iterator[list[subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []
    try:
        yield children
    finally:
        for child in children:
            child.terminate()
        deadline_s = time.monotonic() + _STOP_WITHIN_S
        for child in children:
            _wait_or_kill(child, deadline_s)


def _wait_or_kill(child: subprocess.Popen[bytes], deadline_s: float) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
