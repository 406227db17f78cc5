"""Where the gateway listens when it is told something unusual."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import httpx
import pytest

from tests.fakes.consul_agent import free_ports
from tests.fakes.gateway import routes_file, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


async def status_of(url: str) -> int:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading all authorities would take long
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, verify=plain) as client:
        return (await client.get(url)).status_code


async def test_the_admin_port_may_be_off(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        gateway = GatewayRun(routes_to(web), tmp_path, admin="off")
        gateway.launch()
        try:
            (event,) = await gateway.wait_for("listening")
            status = await status_of(f"http://127.0.0.1:{event['port']}/")
        finally:
            gateway.kill()

    assert status == 200
    assert [one["site"] for one in gateway.logged("listening")] == ["main"]


async def test_variables_that_are_no_settings_are_named_at_the_start(tmp_path: Path) -> None:
    """Somebody who guesses a name finds out; what Kubernetes sets is none of ours."""
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, listen=":80", port="tcp://10.0.0.1:80") as gateway,
    ):
        (event,) = gateway.logged("variables_ignored")

    assert (event["level"], event["variables"]) == ("warning", ["GATEWAY_LISTEN"])


async def test_it_listens_on_ipv6_too(tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("NO IPv6 LOOPBACK on this machine")
    async with (
        ScriptedUpstream() as web,
        GatewayRun(routes_to(web), tmp_path, bind="[::1]:0") as gateway,
    ):
        assert await status_of(f"http://[::1]:{gateway.port}/") == 200


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def test_without_a_registry_clients_wait_no_longer_than_they_are_told_to(
    tmp_path: Path,
) -> None:
    """They connect at once; what they get after the wait is a refusal with its reason."""
    (port, nobody) = free_ports(2)
    gateway = GatewayRun(
        routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"}),
        tmp_path,
        bind=f"127.0.0.1:{port}",
        registry="consul",
        consul_address=f"127.0.0.1:{nobody}",
        start_wait="600ms",
    )
    gateway.launch()
    try:
        await gateway.wait_for("listening")  # the admin port, which does not wait
        waiting = [one["site"] for one in gateway.logged("listening")]
        status = await status_of(f"http://127.0.0.1:{port}/")
        (event,) = await gateway.wait_for("start_not_awaited")
    finally:
        gateway.kill()

    assert waiting == ["admin"]
    assert status == 503
    assert event["missing_snapshots"] == ["web"]


async def test_a_signal_during_the_wait_ends_it(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    gateway = GatewayRun(
        routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"}),
        tmp_path,
        registry="consul",
        consul_address=f"127.0.0.1:{nobody}",
        start_wait="60s",
    )
    gateway.launch()
    try:
        await gateway.wait_for("listening")
        gateway.signal(signal.SIGTERM)
        code = await gateway.ended()
    finally:
        gateway.kill()

    assert code == 0
    assert gateway.logged("task_failed") == []
