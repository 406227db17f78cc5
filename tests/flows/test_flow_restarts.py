"""Instances that restart in turn under load: nothing is lost, sent twice, or mixed up.

They are programs of their own that write down what they were sent, in files that outlive them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.instance import Ledger
from tests.fakes.load import Load, Shot, hammer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

REQUESTS = 5000
# With instances that think for 20 ms this takes more than six seconds, so as many restarts.
CONCURRENCY = 16
EVERY_S = 1.0
How = Literal["SIGKILL", "SIGTERM"]


def is_post(number: int) -> bool:
    """Tell whether a request is one that may not be sent twice: each third is."""
    return number % 3 == 0


def request(number: int) -> bytes:
    """Write a request that has an id of its own."""
    if is_post(number):
        return ask(f"/{number}", "POST", body=b"pay" * 100)
    return ask(f"/{number}")


@dataclass
class Ledgers:
    """Two instances that write down what they are sent."""

    instances: list[Ledger] = field(default_factory=list)
    restarts: int = 0

    def count(self) -> Counter[str]:
        """Count how often each `METHOD TARGET` was sent to any of them."""
        return Counter(line for one in self.instances for line in one.lines())

    async def restart_in_turn(self, how: How, *, until: asyncio.Event) -> None:
        """Restart one after the other, one every second."""
        while not until.is_set():
            await asyncio.sleep(EVERY_S)
            one = self.instances[self.restarts % len(self.instances)]
            if how == "SIGKILL":
                one.kill()
            else:
                await one.stop()
            await one.start()
            self.restarts += 1


@asynccontextmanager
async def two_ledgers(folder: Path) -> AsyncIterator[Ledgers]:
    async with AsyncExitStack() as stack:
        ledgers = Ledgers()
        for name in ("one", "other"):
            ledgers.instances.append(await stack.enter_async_context(Ledger(name, folder)))
        yield ledgers


async def load_with_restarts(ledgers: Ledgers, how: How, port: int) -> Load:
    """Send all requests while the instances restart."""
    is_over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ledgers.restart_in_turn(how, until=is_over))
        load = await hammer(
            f"http://127.0.0.1:{port}/",
            total=REQUESTS,
            concurrency=CONCURRENCY,
            make_request=request,
            timeout_s=60,
        )
        is_over.set()
    return load


def is_own_answer(shot: Shot) -> bool:
    return shot.status == 200 and shot.body == b"/%d" % shot.number


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
async def test_while_instances_restart_no_get_fails_and_no_post_is_sent_twice(
    tmp_path: Path, how: How
) -> None:
    async with (
        two_ledgers(tmp_path) as ledgers,
        GatewayRun(
            routes_to(*(one.port for one in ledgers.instances)),
            tmp_path / "gateway",
        ) as gateway,
    ):
        load = await load_with_restarts(ledgers, how, gateway.port)
        sent = ledgers.count()

    posts_not_answered = [one for one in load.shots if is_post(one.number) and one.status != 200]
    answered = [one for one in load.shots if one not in posts_not_answered]
    assert load.errors == []
    assert ledgers.restarts >= 5
    assert [one for one in answered if not is_own_answer(one)] == []
    assert {one.status for one in posts_not_answered} <= {502}
    assert {key: count for key, count in sent.items() if key.startswith("POST") and count > 1} == {}
    # What was in hand when an instance went, and no more than that.
    assert len(posts_not_answered) <= ledgers.restarts * CONCURRENCY
