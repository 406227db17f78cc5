"""Rights in a real Consul: what a token may not see is not gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.core.watch import Phase
from gateway.discovery.consul_options import ConsulOptions
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.following import following
from tests.fakes.waiting import wait_until

pytestmark = [pytest.mark.consul, pytest.mark.slow]

ROOT = "11111111-2222-3333-4444-555555555555"
SERVICES = 'service_prefix "" { policy = "read" }'
NODES = 'node_prefix "" { policy = "read" }'


@pytest.fixture
async def agent(consul_program: Path, tmp_path: Path) -> AsyncIterator[ConsulAgent]:
    """Run a Consul that denies what no policy allows; the test itself is allowed everything."""
    tokens = {"master": ROOT, "agent": ROOT}
    acl = {"acl": {"enabled": True, "default_policy": "deny", "tokens": tokens}}
    async with ConsulAgent(consul_program, tmp_path, config=acl, token=ROOT) as running:
        await running.register_many("web", 2)
        yield running


async def create_token(agent: ConsulAgent) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Make a token that may read; give its secret, itself, and its policy."""
    policy = await agent.put("/v1/acl/policy", {"Name": "reader", "Rules": SERVICES + NODES})
    token = await agent.put("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})
    return token["SecretID"], token, policy


async def test_a_token_from_a_file_is_read_anew_for_each_request(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    secret, *_ = await create_token(agent)
    file = tmp_path / "token"
    file.write_text("00000000-no-such-token\n", encoding="utf-8")
    async with following(ConsulOptions(address=agent.address, wait_s=1, token_file=file)) as seen:
        await wait_until(lambda: seen.phase() is Phase.DENIED)
        file.write_text(f"{secret}\n", encoding="utf-8")

        await seen.wait_for(2)

        assert seen.phase() is Phase.LIVE


async def test_a_deleted_token_keeps_the_last_view_and_is_logged_once(agent: ConsulAgent) -> None:
    secret, token, _ = await create_token(agent)
    with capture_logs() as logs:
        async with following(ConsulOptions(address=agent.address, wait_s=1, token=secret)) as seen:
            await seen.wait_for(2)

            await agent.http.delete(f"/v1/acl/token/{token['AccessorID']}")
            await wait_until(lambda: seen.phase() is Phase.DENIED)
            asked = seen.asked_count()
            await wait_until(lambda: seen.asked_count() >= asked + 1)

            assert len(seen.routable()) == 2
            assert not seen.held()
            assert seen.entry().is_stale
            assert seen.registry.health().reachable

    failures = [entry for entry in logs if entry["event"] == "watch_failed"]
    assert len(failures) == 1
    assert "node_prefix" in failures[0]["detail"]


async def test_a_right_that_is_revoked_looks_like_an_empty_service_and_is_held(
    agent: ConsulAgent,
) -> None:
    secret, _, policy = await create_token(agent)
    async with following(ConsulOptions(address=agent.address, wait_s=1, token=secret)) as seen:
        await seen.wait_for(2)

        await agent.put(
            f"/v1/acl/policy/{policy['ID']}",
            {"ID": policy["ID"], "Name": "reader", "Rules": SERVICES},
        )
        await wait_until(lambda: len(seen.held()) == 2)
        while_held = seen.routable()
        await seen.wait_for(0)

        assert len(while_held) == 2
