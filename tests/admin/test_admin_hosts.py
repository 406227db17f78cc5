"""Under which names the admin port answers."""

from __future__ import annotations

import httpx
import pytest

from gateway.admin.app import create_admin
from tests.fakes.admin import FakeView

PATHS = ["/", "/livez", "/readyz", "/health", "/api/routes", "/nowhere"]


async def asked_as(host: str, path: str = "/livez") -> httpx.Response:
    app = create_admin(FakeView(), hosts=["Gateway-Admin.shop.svc", "admin"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://127.0.0.1"
    ) as client:
        return await client.get(path, headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:9901", "10.1.2.3:9901", "[::1]", "[2001:db8::1]:9901"),
        *("localhost", "LOCALHOST:9901", "localhost.", "x.localhost"),
        *("admin", "admin:9901", "gateway-admin.SHOP.svc:80", "gateway-admin.shop.svc."),
    ],
)
async def test_addresses_localhost_and_the_names_that_were_told_are_answered(host: str) -> None:
    assert (await asked_as(host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:9901", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("notlocalhost", "admin.evil.example", "", "[evil.example]", "2130706433"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
async def test_other_names_get_nothing_but_what_to_do(host: str, path: str) -> None:
    answer = await asked_as(host, path)

    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert "GATEWAY_ADMIN_HOSTS" in answer.json()["detail"]
    assert "evil" not in answer.text
