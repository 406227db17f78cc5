"""What the fake Consul promises holds for the real one too, so that the fake cannot drift."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.consul import FakeConsul
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.waiting import PATIENCE_S

Subject = FakeConsul | ConsulAgent


@pytest.fixture(params=["fake", pytest.param("real", marks=[pytest.mark.consul, pytest.mark.slow])])
async def consul(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    """Run one or the other."""
    if request.param == "fake":
        async with FakeConsul() as fake:
            yield fake
    else:
        async with ConsulAgent(request.getfixturevalue("consul_program"), tmp_path) as agent:
            yield agent


@pytest.fixture
async def http(consul: Subject) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client for its API."""
    async with httpx.AsyncClient(
        base_url=consul.address, trust_env=False, timeout=PATIENCE_S
    ) as client:
        yield client


async def read(
    http: httpx.AsyncClient, service: str, *, index: int = 0, wait: str = "5000ms"
) -> tuple[int, list[Any]]:
    """Ask for a service; give the index and the entries."""
    params = {"index": str(index), "wait": wait} if index else {}
    answer = await http.get(f"/v1/health/service/{service}", params=params, timeout=PATIENCE_S)
    assert answer.status_code == 200
    return int(answer.headers["x-consul-index"]), answer.json()


async def test_a_read_without_an_index_is_answered_at_once(
    consul: Subject, http: httpx.AsyncClient
) -> None:
    await consul.register("web", "a", 8001)

    index, entries = await read(http, "web")

    assert index >= 1
    assert [(one["Service"]["ID"], one["Service"]["Port"]) for one in entries] == [("a", 8001)]
    assert {"Node", "Service", "Checks"} <= entries[0].keys()


async def test_a_service_that_does_not_exist_is_an_empty_list_with_an_index(
    consul: Subject, http: httpx.AsyncClient
) -> None:
    index, entries = await read(http, "missing")

    assert index >= 1
    assert entries == []


async def test_a_blocking_read_is_answered_when_its_service_changes(
    consul: Subject, http: httpx.AsyncClient
) -> None:
    await consul.register("web", "a")
    index, _ = await read(http, "web")

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(read(http, "web", index=index))
        await consul.register("web", "b")
    later, entries = asking.result()

    assert later > index
    assert len(entries) == 2


async def test_a_blocking_read_is_answered_unchanged_when_its_wait_is_over(
    consul: Subject, http: httpx.AsyncClient
) -> None:
    await consul.register("web", "a")
    index, _ = await read(http, "web")

    later, entries = await read(http, "web", index=index, wait="300ms")

    assert later == index
    assert len(entries) == 1


async def test_others_wake_a_service_that_does_not_exist_but_not_one_that_does(
    consul: Subject, http: httpx.AsyncClient
) -> None:
    await consul.register("web", "a")
    existing, _ = await read(http, "web")
    missing, _ = await read(http, "missing")

    async with asyncio.TaskGroup() as tasks:
        undisturbed = tasks.create_task(read(http, "web", index=existing, wait="60000ms"))
        woken = tasks.create_task(read(http, "missing", index=missing, wait="60000ms"))
        await consul.register("other", "o")
        _, of_the_missing = await woken
        was_disturbed = undisturbed.done()
        await consul.register("web", "b")
        _, of_the_existing = await undisturbed

    assert of_the_missing == []
    assert not was_disturbed
    assert len(of_the_existing) == 2


async def test_after_a_loss_of_state_an_old_index_blocks_and_a_lower_one_comes_back(
    consul: Subject, http: httpx.AsyncClient
) -> None:
    for number in range(30):
        await consul.register("web", "a", 8000 + number)
    before, _ = await read(http, "web")

    if isinstance(consul, FakeConsul):
        consul.lose_state()
    else:
        await consul.restart()
    after, entries = await read(http, "web", index=before, wait="300ms")

    assert after < before
    assert entries == []


async def test_the_status_names_a_leader(consul: Subject, http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/status/leader")

    assert ":" in answer.json()
