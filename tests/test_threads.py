"""Work in threads of our own: its outcome comes back, and nobody waits for what nobody wants."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from gateway.threads import Pace, StoppedError, in_thread
from tests.fakes.waiting import PATIENCE_S, wait_until


async def test_the_result_comes_back() -> None:
    assert await in_thread(lambda _: threading.current_thread().name, name="named so") == "named so"


async def test_an_error_comes_back() -> None:
    def fail(_: Pace) -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        await in_thread(fail, name="failing")


async def test_work_that_nobody_waits_for_ends_at_its_next_step() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(pace: Pace) -> None:
        begun.set()
        try:
            while True:
                pace.step()
        except StoppedError:
            ended.set()
            raise

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(in_thread(work, name="endless"))
        await wait_until(begun.is_set)
        task.cancel()
    await wait_until(ended.is_set)


async def test_the_loop_turns_while_a_thread_computes() -> None:
    """The order is what counts: the loop had hundreds of turns before the work was done."""
    turns = 0

    def work(pace: Pace) -> int:
        for _ in range(2_000_000):
            pace.step()
        return turns

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(in_thread(work, name="busy"))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1

    assert task.result() > 100


def test_a_thread_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    script = """
import asyncio, time
from gateway.threads import in_thread
async def main():
    try:
        async with asyncio.timeout(0.05):
            await in_thread(lambda _: time.sleep(3600), name="hangs")
    except TimeoutError:
        print("over")
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert (ran.stdout, ran.stderr, ran.returncode) == ("over\n", "", 0)
