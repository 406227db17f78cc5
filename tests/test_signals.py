"""The handler of signals that are ignored: where it is installed, and when it tells."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway.signals import IGNORED, end_on_signals, ignore_signals


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    """Begin with the default actions, and restore what was there."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in IGNORED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_is_installed_once_however_often_that_is_asked_for() -> None:
    ignored = ignore_signals()

    assert ignore_signals() is ignored
    assert {signal.getsignal(number) for number in IGNORED} == {ignored}


def test_what_is_handled_or_ignored_already_stays_so() -> None:
    """`nohup` ignores SIGHUP; the program of which the gateway is a part may handle SIGUSR1."""
    own = lambda *_: None  # noqa: E731 -- any handler
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, own)

    ignored = ignore_signals()

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR1) is own
    assert signal.getsignal(signal.SIGUSR2) is ignored


async def test_signals_are_told_in_order_also_those_that_came_before_the_loop() -> None:
    told: list[str] = []
    has_three = asyncio.Event()

    def tell(name: str, meaning: str) -> None:
        assert meaning
        told.append(name)
        if len(told) == 3:
            has_three.set()

    ignored = ignore_signals()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert told == []
    with ignored.told_in(asyncio.get_running_loop(), tell):
        assert told == ["SIGUSR2"]
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        await has_three.wait()
    os.kill(os.getpid(), signal.SIGHUP)  # the loop is on its way out: no error

    assert sorted(told) == ["SIGHUP", "SIGUSR1", "SIGUSR2"]
    assert repr(ignored) == "<IgnoredSignals, 0 to be told>"


async def test_a_storm_of_signals_is_told_once_and_breaks_nothing() -> None:
    """Its handler runs inside of itself when the next one comes before it has ended."""
    told: list[str] = []
    ignored = ignore_signals()
    with ignored.told_in(asyncio.get_running_loop(), lambda name, _: told.append(name)):
        for _ in range(20_000):
            os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert told == ["SIGHUP"]


def test_the_module_that_installs_it_imports_nothing_slow() -> None:
    """Whatever is imported before it is time in which a signal still ends the process."""
    program = "import sys, gateway.__main__; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "gateway.signals" in loaded
    assert {"asyncio", "structlog", "typer", "uvicorn", "gateway.cli"} & set(loaded) == set()


def test_what_ends_the_start_takes_the_place_of_the_default_action_only() -> None:
    """A shell starts what it runs in the background with SIGINT ignored."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_on_signals()
        assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
