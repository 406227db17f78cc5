"""Where the gateway listens when it is told something unusual."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import httpx
import pytest

from tests.fakes.gateway import routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.upstream import ScriptedUpstream

pytestmark = pytest.mark.slow


async def status_of(url: str) -> int:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading all authorities would take long
    async with httpx.AsyncClient(trust_env=False, verify=plain) as client:
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
