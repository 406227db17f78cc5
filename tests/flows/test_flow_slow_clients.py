"""A thousand slow clients cost the busy ones little, and cost the gateway little memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.crowd_busy import BusyCrowd, busy_crowd
from tests.fakes.crowd_slow import slow_crowd
from tests.fakes.gateway import routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.instance import Instance
from tests.fakes.memory import PeakOfMemory

SLOW, BUSY = 1000, 64
# Shorter than by default, so that each round has slow clients that are cut and come again.
HEAD_TIMEOUT = "3s"
ROUNDS = 3
MEASURED_S = 1.5
MOST_RESIDENT_BYTES = 150 * 1000 * 1000


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_a_thousand_slow_clients_do_not_hold_up_the_busy_ones(tmp_path: Path) -> None:
    """Rounds without and with them take turns, so that a busy machine is busy for both.

    The busy ones ask as fast as they are answered: their latency is that of a full gateway, which
    is steadier than that of one that waits for work. Whatever else the machine does only adds to
    it, so the best rounds are compared.
    """
    alone: list[float] = []
    beside: list[float] = []
    async with (
        Instance("busy") as instance,
        GatewayRun(routes_to(instance.port), tmp_path, client_head_timeout=HEAD_TIMEOUT) as gateway,
        slow_crowd(gateway.port, SLOW) as slow,
        busy_crowd(gateway.port, BUSY) as busy,
    ):
        memory = PeakOfMemory(gateway.pid)
        await busy.ask(0.5)  # connections are made, and code is warm
        for _ in range(ROUNDS):
            alone.append(await p99_s(busy))
            await slow.come()
            beside.append(await p99_s(busy))
            cut = await slow.leave()
            assert cut > SLOW / 4
        peak_bytes = memory.peak_bytes

    assert min(beside) < 2 * min(alone)
    assert peak_bytes < MOST_RESIDENT_BYTES


async def p99_s(busy: BusyCrowd) -> float:
    """Let the busy ones ask for a while; all must be answered."""
    seen = await busy.ask(MEASURED_S)
    assert seen.wrong == []
    return seen.p99_s
