"""Names that nobody answers for: they stop nobody else, and no instance is blamed for them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.core.health import Opinion
from tests.fakes.client import RawClient
from tests.fakes.gateway import Serve, ask, routes_file
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import PATIENCE_S, wait_until

_ask_the_system = socket.getaddrinfo


class DeadNames:
    """Takes the place of the system's resolver: of names that begin with "dead" it says nothing.

    Those that end with ".alive" are this machine.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def __call__(self, host: Any, *args: Any, **kwargs: Any) -> Sequence[Any]:
        name = str(host)
        if name.startswith("dead"):
            self.asked.append(name)
            self.released.wait(PATIENCE_S)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if name.endswith(".both"):  # nobody listens at the first one
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
                for address in ("127.0.0.2", "127.0.0.1")
            ]
        return _ask_the_system("127.0.0.1" if name.endswith(".alive") else host, *args, **kwargs)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadNames]:
    dead = DeadNames()
    monkeypatch.setattr(socket, "getaddrinfo", dead)
    yield dead
    dead.released.set()


def routes(port: int, *, dead_count: int) -> str:
    """Route /dead-N to a dead name each, and /web to a name that is known."""
    dead = {
        f"dead-{number}": {"servers": [f"http://dead-{number}:80"]} for number in range(dead_count)
    }
    services = {"web": {"servers": [f"http://web.alive:{port}"]}, **dead}
    return routes_file(
        services,
        *(
            {
                "match": {"path_prefix": f"/{name}"},
                "service": name,
                "timeouts": {"connect": "500ms"},
            }
            for name in services
        ),
    )


async def test_many_dead_names_stop_no_service_and_are_not_blamed(
    serve: Serve, names: DeadNames
) -> None:
    """Today's resolvers have four to sixteen threads: more dead names than that."""
    async with ScriptedUpstream() as web:
        async with serve(routes(web.port, dead_count=40)) as gateway, AsyncExitStack() as clients:
            dead = []
            for number in range(40):
                client = await clients.enter_async_context(RawClient(gateway.port))
                await client.send(ask(f"/dead-{number}"))
                dead.append(client)
            await wait_until(lambda: len(set(names.asked)) == 40)

            async with RawClient(gateway.port) as client:
                await client.send(ask("/web"))
                assert (await client.read_response()).status == 200

            for client in dead:
                refusal = await client.read_response()
                assert refusal.status == 504
                assert refusal.values(b"x-gateway-reason") == [b"dns_timeout"]
            services = await gateway.ask_admin("/api/services")

    breakers = [one["breaker"] for each in services for one in each["instances"]]
    assert len(breakers) == 41
    assert {one["state"] for one in breakers} == {"closed"}
    assert {one["failures_in_a_row"] for one in breakers} == {0}


async def test_requests_for_a_dead_name_share_one_lookup(serve: Serve, names: DeadNames) -> None:
    async with serve(routes(1, dead_count=1)) as gateway:
        for _ in range(3):
            async with RawClient(gateway.port) as client:
                await client.send(ask("/dead-0"))
                assert (await client.read_response()).status == 504

    assert names.asked == ["dead-0"]


async def test_all_addresses_of_a_name_are_tried(serve: Serve, names: DeadNames) -> None:
    async with ScriptedUpstream() as web:
        services = {"web": {"servers": [f"http://web.both:{web.port}"]}}
        route = {"match": {"path_prefix": "/"}, "service": "web"}
        async with serve(routes_file(services, route)) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask("/"))
                assert (await client.read_response()).status == 200


async def test_a_health_check_of_a_dead_name_says_nothing_about_its_instance(
    serve: Serve, names: DeadNames
) -> None:
    async with ScriptedUpstream() as web:
        check = {"path": "/", "interval": "1s", "timeout": "100ms", "unhealthy_after": 1}
        services = {
            "web": {"servers": [f"http://web.alive:{web.port}"], "health_check": check},
            "dead": {"servers": [f"http://dead-{n}:80" for n in range(20)], "health_check": check},
        }
        chosen = [{"match": {"path_prefix": f"/{name}"}, "service": name} for name in services]
        async with serve(routes_file(services, *chosen)) as gateway:
            fleets = gateway.gateway.engine.fleets
            (well,) = fleets["web"].members
            await wait_until(lambda: len(set(names.asked)) == 20)
            await wait_until(lambda: fleets["web"].members[well].check.opinion is Opinion.HEALTHY)

            assert not any(m.check.is_failing for m in fleets["dead"].members.values())
