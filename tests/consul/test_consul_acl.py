"""Rights in a real Consul: what a token may not see is not gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.core.watch import Phase, WatchPolicy
from gateway.discovery.consul_options import ConsulOptions
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.following import QUICK, following
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


async def test_a_right_that_is_revoked_looks_like_an_empty_service_and_takes_nothing_away(
    agent: ConsulAgent,
) -> None:
    """Longer than any hold: what may not be seen is not gone."""
    secret, _, policy = await create_token(agent)
    async with following(ConsulOptions(address=agent.address, wait_s=1, token=secret)) as seen:
        await seen.wait_for(2)

        await agent.put(
            f"/v1/acl/policy/{policy['ID']}",
            {"ID": policy["ID"], "Name": "reader", "Rules": SERVICES},
        )
        await wait_until(lambda: seen.phase() is Phase.DENIED)
        asked = seen.asked_count()
        await wait_until(lambda: seen.asked_count() >= asked + 1)

        assert len(seen.routable()) == 2
        assert not seen.held()
        health = seen.registry.health()
        assert "no node at all" in str(health.detail)
        assert not health.is_blind  # it has seen them in this run


async def write_token(agent: ConsulAgent, rules: str) -> str:
    """Make a token with these rules only."""
    policy = await agent.put("/v1/acl/policy", {"Name": f"p{len(rules)}", "Rules": rules})
    token = await agent.put("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})
    return str(token["SecretID"])


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (None, "no node at all"),
        (SERVICES, "no node at all"),
        (NODES, "no service at all"),
    ],
    ids=["no token", "without nodes", "without services"],
)
async def test_a_token_that_sees_nothing_is_told_by_name_and_nothing_is_believed(
    agent: ConsulAgent, rules: str | None, why: str
) -> None:
    token = None if rules is None else await write_token(agent, rules)
    with capture_logs() as logs:
        async with following(ConsulOptions(address=agent.address, wait_s=1, token=token)) as seen:
            await wait_until(lambda: seen.phase() is Phase.DENIED)
            await wait_until(lambda: "registry_denied" in [one["event"] for one in logs])
            health = seen.registry.health()

            assert seen.catalog.get("web") is None
            assert health.reachable
            assert health.is_blind
            assert why in str(health.detail)

    told = next(one for one in logs if one["event"] == "registry_denied")
    assert (told["log_level"], told["address"]) == ("warning", agent.address)
    assert "node_prefix" in told["detail"]


async def test_a_service_that_does_not_exist_is_believed_with_the_right_token(
    agent: ConsulAgent,
) -> None:
    secret, *_ = await create_token(agent)
    async with following(
        ConsulOptions(address=agent.address, wait_s=1, token=secret), ["missing"]
    ) as seen:
        await wait_until(lambda: seen.phase("missing") is Phase.ABSENT)

        assert seen.instances("missing") == ()
        assert not seen.registry.health().is_blind


async def test_an_empty_token_file_is_told_and_filling_it_is_enough(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    """The pause after a denial is up to 30 s: the new token must not wait for its end."""
    secret, *_ = await create_token(agent)
    file = tmp_path / "token"
    file.write_text("\n", encoding="utf-8")
    asked = ConsulOptions(address=agent.address, wait_s=60, token_file=file)
    never_again = replace(QUICK.watcher, watch=WatchPolicy(slow_min_s=3600, slow_max_s=3600))
    async with following(asked, policies=replace(QUICK, watcher=never_again)) as seen:
        await wait_until(lambda: seen.phase() is Phase.DENIED)
        assert "is empty" in str(seen.registry.health().detail)

        file.write_text(secret, encoding="utf-8")
        await seen.wait_for(2)


async def test_another_token_ends_the_question_in_flight(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    """With a question of the old token in flight, the new one would wait for up to ten minutes."""
    secret, *_ = await create_token(agent)
    file = tmp_path / "token"
    file.write_text(ROOT, encoding="utf-8")
    asked = ConsulOptions(address=agent.address, wait_s=600, token_file=file)
    with capture_logs() as logs:
        async with following(asked) as seen:
            await seen.wait_for(2)
            await wait_until(lambda: seen.asked_count() == 2)

            file.write_text("00000000-0000-0000-0000-00000000dead", encoding="utf-8")
            await wait_until(lambda: seen.phase() is Phase.DENIED)
            assert len(seen.routable()) == 2

            file.write_text(secret, encoding="utf-8")
            await wait_until(lambda: "registry_allowed" in [one["event"] for one in logs])
            assert seen.phase() is Phase.LIVE

    events = [one["event"] for one in logs]
    assert events.count("token_changed") == 2
    assert [one for one in events if one in {"registry_denied", "registry_allowed"}] == [
        "registry_denied",
        "registry_allowed",
    ]


async def test_another_reason_for_being_denied_is_told_too(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    """Whoever exchanges one wrong token for another must not think that nothing happened."""
    file = tmp_path / "token"
    file.write_text("00000000-0000-0000-0000-00000000dead", encoding="utf-8")
    asked = ConsulOptions(address=agent.address, wait_s=1, token_file=file)
    with capture_logs() as logs:

        def denials() -> list[str]:
            return [one["detail"] for one in logs if one["event"] == "registry_denied"]

        async with following(asked) as seen:
            await wait_until(lambda: len(denials()) == 1)
            file.write_text(await write_token(agent, SERVICES), encoding="utf-8")
            await wait_until(lambda: any("no node at all" in one for one in denials()))
            assert seen.phase() is Phase.DENIED

    assert "no node at all" not in denials()[0]
    assert "registry_allowed" not in [one["event"] for one in logs]
