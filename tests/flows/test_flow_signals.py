"""Signals that `gateway run` does not act on, and those that end it before it serves anybody."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun, clean_environment
from tests.fakes.scenes import hold, play, respond
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow

IGNORED = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for the signal: a bit of `SigCgt` (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    assert caught is not None
    return bool(int(caught[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", IGNORED, ids=lambda one: one.name)
async def test_a_signal_that_means_nothing_is_logged_and_what_is_in_hand_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    released = asyncio.Event()
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        web.on_request(play(hold(released), respond(body=b"late")))
        await client.send(ask())
        await web.wait_until(lambda: len(web.requests) == 1)

        gateway.signal(number)
        (event,) = await gateway.wait_for("signal_ignored")
        released.set()
        answer = await client.read_response()
        await client.send(ask())
        again = await client.read_response()

        assert (event["signal"], event["level"]) == (number.name, "warning")
        assert event["meaning"]
        assert (answer.status, answer.body, again.status) == (200, b"late", 200)
        assert answer.values(b"connection") == []
        assert gateway.is_running


async def test_they_do_not_end_a_gateway_that_is_still_importing(tmp_path: Path) -> None:
    gateway = GatewayRun(routes_to(1), tmp_path)
    gateway.launch()
    try:
        await wait_until(lambda: handles(gateway.pid, IGNORED[-1]))
        assert gateway.said == ""  # logging is not there yet
        for number in IGNORED:
            gateway.signal(number)
        await gateway.wait_for("listening", 2)
        told = await gateway.wait_for("signal_ignored", len(IGNORED))
    finally:
        gateway.kill()

    assert sorted(event["signal"] for event in told) == sorted(one.name for one in IGNORED)


async def test_they_do_not_end_a_gateway_that_drains(tmp_path: Path) -> None:
    released = asyncio.Event()
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        web.on_request(play(hold(released), respond(body=b"late")))
        await client.send(ask())
        await web.wait_until(lambda: len(web.requests) == 1)
        gateway.signal(signal.SIGTERM)
        await gateway.wait_for("draining")

        for number in IGNORED:
            gateway.signal(number)
        await gateway.wait_for("signal_ignored", len(IGNORED))
        released.set()
        answer = await client.read_response()
        code = await gateway.ended()

        assert (answer.status, answer.body, code) == (200, b"late", 0)
        assert gateway.logged("drain_cut_short") == []


# --- Those that end it, while it starts ----------------------------------------------------------

ENDING = [signal.SIGTERM, signal.SIGINT]
MOMENTS_S = [0, 0.1, 0.3, 0.6, 0.9]  # after its first instructions; it serves after a second or so
UNSHARE = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
AS_PROCESS_1 = pytest.param(
    UNSHARE,
    id="as process 1",
    marks=pytest.mark.skipif(
        subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode != 0
        if shutil.which("unshare")
        else True,
        reason="a process namespace may not be made here",
    ),
)


def start(routes: Path, wrapper: list[str]) -> subprocess.Popen[bytes]:
    environment = clean_environment(
        GATEWAY_CONFIG=str(routes),
        GATEWAY_REGISTRY="static",
        GATEWAY_STATE_DIR="off",
        GATEWAY_ADMIN="off",
        GATEWAY_BIND="127.0.0.1:0",
    )
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", "gateway", "run"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def child_of(pid: int) -> int:
    """Give the one child of a process, 0 while there is none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children else 0


@pytest.mark.parametrize("moment_s", MOMENTS_S)
@pytest.mark.parametrize("number", ENDING, ids=lambda one: one.name)
@pytest.mark.parametrize("wrapper", [pytest.param([], id="as any process"), AS_PROCESS_1])
async def test_a_start_is_ended_at_any_moment_without_a_traceback(
    tmp_path: Path, wrapper: list[str], number: signal.Signals, moment_s: float
) -> None:
    """As process 1 it must not be lost: the system drops those that have no handler."""
    routes = tmp_path / "routes.yaml"
    routes.write_text(routes_to(1), encoding="utf-8")
    with start(routes, wrapper) as process:
        try:
            if wrapper:
                await wait_until(lambda: child_of(process.pid) != 0)
            pid = child_of(process.pid) if wrapper else process.pid
            await wait_until(lambda: handles(pid, signal.SIGTERM))
            # SIGINT has Python's own handler before: the two are installed one after the other.
            await wait_until(lambda: handles(pid, signal.SIGUSR2))
            await asyncio.sleep(moment_s)
            os.kill(pid, number)
            await wait_until(lambda: process.poll() is not None)
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read().decode()

    assert process.returncode == 0
    assert "Traceback" not in said
    if "listening" not in said and "drain" not in said:
        assert f"gateway: {number.name} before it served anybody: ended" in said
