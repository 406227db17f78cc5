"""Signals that `gateway run` does not act on: never the end of the process, at no time."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
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
