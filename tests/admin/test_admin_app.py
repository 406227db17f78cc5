"""The admin port over ASGI: what it answers, to whom, and what it never does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from gateway.admin.app import create_admin
from tests.fakes.admin import FakeView, instance, route

Client = httpx.AsyncClient


@pytest.fixture
def view() -> FakeView:
    return FakeView(routes=[route("users", "user-service"), route("orders", "order-service")])


@pytest.fixture
async def client(view: FakeView) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(
        create_admin(view, hosts=["admin"], clock=view.clock), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def test_it_is_alive_whatever_is_wrong(view: FakeView, client: Client) -> None:
    view.is_draining = True

    answer = await client.get("/livez")

    assert (answer.status_code, answer.json()) == (200, "ok")


async def test_it_is_ready_once_each_routed_service_was_heard_of(
    view: FakeView, client: Client
) -> None:
    view.publish("user-service", instance("user-1"))

    before = await client.get("/readyz")
    view.publish("order-service")
    after = await client.get("/readyz")

    assert before.status_code == 503
    assert before.json() == {
        "ready": False,
        "draining": False,
        "missing_snapshots": ["order-service"],
        "blind_registries": {},
    }
    assert after.status_code == 200
    assert after.json() == {
        "ready": True,
        "draining": False,
        "missing_snapshots": [],
        "blind_registries": {},
    }


async def test_a_snapshot_from_disk_is_enough_to_be_ready(view: FakeView, client: Client) -> None:
    """Else a restart while the registry is away would be an outage."""
    for service in ("user-service", "order-service"):
        view.publish(service, instance("one"), source="disk", confirmed_at_s=None)

    assert (await client.get("/readyz")).status_code == 200


async def test_it_is_not_ready_while_draining(view: FakeView, client: Client) -> None:
    for service in ("user-service", "order-service"):
        view.publish(service, instance("one"))
    view.is_draining = True

    answer = await client.get("/readyz")

    assert (answer.status_code, answer.json()["draining"]) == (503, True)


async def test_health_is_200_even_when_all_is_down(client: Client) -> None:
    answer = await client.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (200, "down")


async def test_the_index_names_pages_that_exist(view: FakeView, client: Client) -> None:
    view.publish("user-service")
    view.publish("order-service")

    index = (await client.get("/")).json()

    assert "/health" in index["endpoints"]
    for path in index["endpoints"]:
        assert (await client.get(path)).status_code == 200


async def test_routes_and_services_are_lists(view: FakeView, client: Client) -> None:
    routes = (await client.get("/api/routes")).json()
    services = (await client.get("/api/services")).json()

    assert [one["id"] for one in routes] == ["users", "orders"]
    assert [one["name"] for one in services] == ["order-service", "user-service"]


async def test_one_service_is_shown_alone(view: FakeView, client: Client) -> None:
    view.publish("user-service", instance("user-1"))

    answer = await client.get("/api/services/user-service")

    assert [one["id"] for one in answer.json()["instances"]] == ["user-1"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api/services/no-such-service", "/health/", "/api/services/a/b"]
)
async def test_what_is_not_there_is_a_404_in_json(client: Client, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["title"]) == (404, "Not Found")


async def test_nothing_of_the_request_is_repeated_in_a_refusal(client: Client) -> None:
    answer = await client.get("/api/services/%3Cscript%3E", headers={"host": "evil.example"})

    assert "script" not in answer.text
    assert "evil" not in answer.text + str(answer.headers)


PATHS = ["/", "/livez", "/readyz", "/health", "/api/routes", "/api/services", "/api/services/x"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(client: Client, method: str, path: str) -> None:
    answer = await client.request(method, path)

    assert answer.status_code == 405
    assert {"GET", "HEAD"} == set(answer.headers["allow"].split(", "))
    assert answer.json()["title"] == "Method Not Allowed"


@pytest.mark.parametrize("path", PATHS[:-1])
async def test_head_is_taken_wherever_get_is(client: Client, path: str) -> None:
    head, get = await client.head(path), await client.get(path)

    assert get.status_code == head.status_code
    assert get.headers["content-type"] == head.headers["content-type"]


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
async def test_no_answer_is_kept_or_guessed_at(client: Client, path: str) -> None:
    answer = await client.get(path)

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_mistake_is_a_500_in_json_that_tells_nothing_of_the_inside(
    view: FakeView, client: Client
) -> None:
    view.registries = [BrokenRegistry()]

    answer = await client.get("/health")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


async def test_a_mistake_surfaces(view: FakeView) -> None:
    view.registries = [BrokenRegistry()]
    transport = httpx.ASGITransport(create_admin(view, hosts=["admin"]))

    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        with pytest.raises(RuntimeError, match="secret"):
            await client.get("/health")


class BrokenRegistry:
    """A registry with a bug."""

    name = "broken"

    def health(self) -> Any:
        raise RuntimeError("secret")

    def follow(self, services: object) -> None:
        raise AssertionError

    run: Callable[..., Any] = follow
