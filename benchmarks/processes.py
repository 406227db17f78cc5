"""Programs that are started, pinned to cores, weighed, and ended again.

The one rule: whatever was started here ends with the `with` block, and with us should we be killed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ROOT = Path(__file__).parents[1]

_END_WITHIN_S = 5.0
_TOLD_BYTES = 1500
_OTHER_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments; `environment` is added to ours, `stdout` is appended to."""

    words: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdout: Path | None = None


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the proxy has, and which load and instances have."""

    proxy: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cores:
        """Give the proxy one core and everybody else the others; raises RuntimeError for one."""
        first, *rest = sorted(os.sched_getaffinity(0))
        if not rest:
            raise RuntimeError("two cores are needed: one for the proxy, one for the load")
        return cls(frozenset({first}), frozenset(rest))


class EndedEarlyError(Exception):
    """A program that should have gone on; says what it wrote last."""


@dataclass(frozen=True, slots=True)
class Program:
    """One that runs. `log` holds what it wrote to standard error."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """Raise EndedEarlyError if it does not run any more."""
        if self.process.poll() is not None:
            told = self.log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace")
            raise EndedEarlyError(f"exit code {self.process.returncode}: {told}")


@contextlib.contextmanager
def running(command: Command, folder: Path, cores: frozenset[int]) -> Iterator[Program]:
    """Run a program on these cores for as long as this lasts."""
    log = folder / f"{Path(command.words[0]).name}.stderr"
    pinned = [
        *("setpriv", "--pdeathsig", "TERM"),
        *("taskset", "-c", ",".join(map(str, sorted(cores)))),
        *command.words,
    ]
    with contextlib.ExitStack() as files:
        stdout = subprocess.DEVNULL
        if command.stdout is not None:
            stdout = files.enter_context(command.stdout.open("ab")).fileno()
        process = subprocess.Popen(
            pinned,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=files.enter_context(log.open("wb")),
            env={**_environment(), **command.environment},
            cwd=ROOT,
            start_new_session=True,  # so that all of it can be ended, and Ctrl-C reaches only us
        )
    try:
        yield Program(process, log)
    finally:
        _end(process)


def _environment() -> dict[str, str]:
    """Give our own environment, without what might set up a gateway otherwise."""
    ours = ("GATEWAY_", "CONSUL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in it
        process.wait()


def raise_file_limit(wanted: int) -> None:
    """Allow ourselves, and all whom we start, this many open files, or as many as may be had."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):  # not even root may always go above the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """Say how many clients a proxy that we start can have, if it takes two files for each."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES) // 2


def tree(pid: int) -> Iterator[int]:
    """List a process and all below it."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text(encoding="ascii").split():
                yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """Add up the CPU time, user and system, of a process and all that are or were below it."""
    return sum(_cpu_ticks(one) for one in tree(pid)) / TICKS_PER_S


def _cpu_ticks(pid: int) -> int:
    """Sum utime, stime, and those of children that have ended (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(ticks) for ticks in stat.rpartition(")")[2].split()[11:15])


def rss_bytes(pid: int) -> int:
    """Add up the resident memory of a process and all below it; shared pages count for each."""
    return sum(_resident_pages(one) for one in tree(pid)) * PAGE_BYTES


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
