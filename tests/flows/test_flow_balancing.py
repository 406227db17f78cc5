"""Which of several instances answers: weights, keys, cookies, zones, and those that are new."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.model import Instance, Snapshot
from tests.fakes.client import Answer, RawClient
from tests.fakes.consul_agent import ConsulAgent
from tests.fakes.gateway import RunningGateway, Serve, ask, routes_file, routes_to
from tests.fakes.instance import Instance as Process
from tests.fakes.load import hammer
from tests.fakes.programs import find_program
from tests.fakes.scenes import respond
from tests.fakes.tls import Authority, SecuredClient
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until


@asynccontextmanager
async def named(names: str) -> AsyncIterator[dict[str, ScriptedUpstream]]:
    """Run an instance for each letter; it answers with that letter."""
    async with AsyncExitStack() as stack:
        made = {}
        for name in names:
            made[name] = await stack.enter_async_context(ScriptedUpstream())
            made[name].on_request(respond(body=name.encode()))
        yield made


async def get(gateway: RunningGateway, *fields: tuple[str, str], target: str = "/") -> Answer:
    """Ask once, over a connection of its own."""
    async with RawClient(gateway.port) as client:
        await client.send(ask(target, "GET", *fields))
        return await client.read_response()


async def shares(gateway: RunningGateway, count: int = 400) -> dict[str, float]:
    """Ask so many times, by eight clients at once; tell who answered which share."""
    load = await hammer(f"http://127.0.0.1:{gateway.port}/", total=count, concurrency=8)
    assert load.errors == []
    assert load.statuses == {200: count}
    return {body.decode(): times / count for body, times in load.bodies.items()}


def instances(gateway: RunningGateway) -> dict[int, Instance]:
    """List those that the gateway knows, by their ports."""
    snapshot = gateway.gateway.engine.fleets["web"].snapshot
    assert snapshot is not None
    return {one.port: one for one in snapshot.instances}


def publish(gateway: RunningGateway, listed: Iterable[Instance]) -> None:
    """Tell the gateway what a registry would."""
    ordered = tuple(sorted(listed, key=lambda one: one.key))
    gateway.gateway.catalog.publish(
        Snapshot(service="web", instances=ordered, source="static"),
        confirmed_at_s=time.monotonic(),
    )


async def shown(gateway: RunningGateway) -> dict[int, Mapping[str, Any]]:
    """Read what the admin port tells of each instance, by its port."""
    service = await gateway.ask_admin("/api/services/web")
    return {int(one["address"].rpartition(":")[2]): one for one in service["instances"]}


# --- Shares --------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["p2c", "round_robin", "random"])
async def test_instances_get_what_their_weights_say(serve: Serve, balance: str) -> None:
    async with named("ab") as web:
        servers = [{"url": web["a"].url, "weight": 1}, {"url": web["b"].url, "weight": 3}]
        routes = routes_to(service={"servers": servers, "balance": balance})
        async with serve(routes) as gateway:
            got = await shares(gateway)

    assert got["b"] == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize("balance", ["least_requests", "ewma"])
async def test_all_instances_are_used_and_their_latency_is_shown(
    serve: Serve, balance: str
) -> None:
    async with named("abc") as web:
        routes = routes_to(*web.values(), service={"balance": balance})
        async with serve(routes) as gateway:
            got = await shares(gateway)
            seen = await shown(gateway)

    assert got.keys() == {"a", "b", "c"}
    assert all(0 < one["latency_ms"] < 5_000 for one in seen.values())
    assert [(one["tier"], one["refused_by"]) for one in seen.values()] == [(0, [])] * 3


# --- Hashing -------------------------------------------------------------------------------------


async def answers_by_user(gateway: RunningGateway) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for user in (f"user-{number}" for number in range(60)):
        for _ in range(3):
            answer = await get(gateway, ("X-User", user))
            assert answer.status == 200
            found.setdefault(user, set()).add(answer.body)
    return found


async def test_one_user_one_instance_and_only_those_of_a_dead_one_move(serve: Serve) -> None:
    hashed = {
        "balance": "hash",
        "hash_on": {"header": "X-User"},
        "circuit_breaker": {"consecutive_failures": 1},
    }
    async with named("abc") as web, serve(routes_to(*web.values(), service=hashed)) as gateway:
        before = await answers_by_user(gateway)
        await web["a"].refuse()
        await web["a"].drop()
        after = await answers_by_user(gateway)

    assert {1} == {len(bodies) for bodies in (*before.values(), *after.values())}
    assert {b"a", b"b", b"c"} == set().union(*before.values())
    for user, was in before.items():
        assert after[user] == was or (was == {b"a"} and after[user] != {b"a"})


async def test_a_service_is_hashed_on_the_path(serve: Serve) -> None:
    hashed = {"balance": "hash", "hash_on": "path"}
    async with named("abc") as web, serve(routes_to(*web.values(), service=hashed)) as gateway:
        got = {
            path: {(await get(gateway, target=f"/{path}?{number}")).body for number in range(3)}
            for path in range(60)
        }

    assert {1} == {len(bodies) for bodies in got.values()}
    assert {b"a", b"b", b"c"} == set().union(*got.values())


# --- Sticky clients ------------------------------------------------------------------------------

STICKY = {"sticky": {"cookie": "route"}, "circuit_breaker": {"consecutive_failures": 1}}


class Browser:
    """A client that keeps its cookie, as far as these tests need it."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.cookie = ""
        self._gateway = gateway

    async def get(self) -> tuple[bytes, bool]:
        """Ask; tell who answered, and whether the cookie was set anew."""
        fields = [("Cookie", f"theme=dark; {self.cookie}")] if self.cookie else []
        answer = await get(self._gateway, *fields)
        assert answer.status == 200
        cookies = answer.values(b"set-cookie")
        for cookie in cookies:
            self.cookie = cookie.decode().partition(";")[0]
        return answer.body, bool(cookies)


async def test_a_client_stays_with_its_instance_when_others_come(serve: Serve) -> None:
    async with named("abcdef") as web:
        routes = routes_to(*web.values(), service=STICKY)
        async with serve(routes) as gateway:
            everybody = instances(gateway)
            publish(gateway, [everybody[web[name].port] for name in "abc"])
            browser = Browser(gateway)
            home, is_new = await browser.get()
            publish(gateway, everybody.values())
            later = [await browser.get() for _ in range(10)]

        assert is_new
        assert later == [(home, False)] * 10
        assert len(browser.cookie) == len("route=") + 16
        assert str(web[home.decode()].port) not in browser.cookie


async def test_a_client_whose_instance_is_deregistered_is_given_another_one(serve: Serve) -> None:
    async with named("abc") as web, serve(routes_to(*web.values(), service=STICKY)) as gateway:
        browser = Browser(gateway)
        home, _ = await browser.get()
        gone = web[home.decode()].port
        publish(gateway, [one for port, one in instances(gateway).items() if port != gone])

        new_home, is_new = await browser.get()
        later = [await browser.get() for _ in range(10)]

    assert new_home != home
    assert is_new
    assert later == [(new_home, False)] * 10


@pytest.mark.slow
async def test_a_client_whose_instance_is_killed_is_given_another_one(serve: Serve) -> None:
    """Two real processes; the second request after the kill meets an open Breaker."""
    async with Process("one") as one, Process("two") as two:
        async with serve(routes_to(one.port, two.port, service=STICKY)) as gateway:
            browser = Browser(gateway)
            home, _ = await browser.get()
            (one if home == b"one" else two).kill()

            after = [await browser.get() for _ in range(5)]

    other = b"two" if home == b"one" else b"one"
    assert after == [(other, True), *[(other, False)] * 4]


async def test_over_tls_the_cookie_is_secure(serve: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    pair = authority.pair("localhost")
    listener = {"tls_bind": "127.0.0.1:0", "tls_cert": [pair.cert], "tls_key": [pair.key]}
    routes = {"sticky": {"cookie": "route", "ttl": "1h", "path": "/shop", "same_site": "strict"}}
    async with named("a") as web:
        async with serve(routes_to(*web.values(), service=routes), **listener) as gateway:
            plain = await get(gateway)
            async with SecuredClient(gateway.tls_port) as client:
                await client.secure(authority.client_context())
                await client.send(ask())
                secured = await client.read_response()

    attributes = b"; Path=/shop; HttpOnly; SameSite=Strict; Max-Age=3600"
    assert plain.values(b"set-cookie")[0].partition(b"; ")[2] == attributes[2:]
    assert secured.values(b"set-cookie")[0].endswith(attributes + b"; Secure")


# --- New instances -------------------------------------------------------------------------------


async def test_an_instance_that_comes_to_others_starts_slowly(serve: Serve) -> None:
    async with named("abc") as web:
        routes = routes_to(*web.values(), service={"slow_start": "5m"})
        async with serve(routes) as gateway:
            everybody = instances(gateway)
            new = web["c"].port
            publish(gateway, [one for port, one in everybody.items() if port != new])
            publish(gateway, everybody.values())
            got = await shares(gateway)
            seen = await shown(gateway)

    assert 0 < got.get("c", 0.0) < 0.12
    assert (seen[new]["weight"], seen[new]["effective_weight"]) == (1, 0.1)


@pytest.mark.slow
async def test_after_its_time_it_gets_its_share(serve: Serve) -> None:
    async with named("abc") as web:
        routes = routes_to(*web.values(), service={"slow_start": "1s"})
        async with serve(routes) as gateway:
            everybody = instances(gateway)
            publish(gateway, [one for port, one in everybody.items() if port != web["c"].port])
            publish(gateway, everybody.values())
            new = gateway.member(web["c"])
            weight_at_first = new.weight
            await wait_until(lambda: new.weight == 1.0)
            got = await shares(gateway)

    assert weight_at_first < 0.5
    assert got["c"] == pytest.approx(1 / 3, abs=0.1)


# --- Zones ---------------------------------------------------------------------------------------


async def test_the_zone_of_the_gateway_comes_first_and_the_others_serve_without_it(
    serve: Serve,
) -> None:
    async with named("abwx") as web:
        servers = [
            {"url": upstream.url, "zone": "east" if name in "ab" else "west"}
            for name, upstream in web.items()
        ]
        service = {"servers": servers, "circuit_breaker": {"consecutive_failures": 1}}
        async with serve(routes_to(service=service), zone="east") as gateway:
            all_well = await shares(gateway, 200)
            for name in "ab":
                await web[name].refuse()
                await web[name].drop()
            none_here = await shares(gateway, 200)

    assert all_well.keys() == {"a", "b"}
    assert none_here.keys() == {"w", "x"}


# --- What Consul says ----------------------------------------------------------------------------


@pytest.mark.consul
@pytest.mark.slow
async def test_weights_and_zones_come_from_consul(tmp_path: Path) -> None:
    program = find_program("consul", fetch="scripts/get-servers .cache/servers")
    facts: dict[str, dict[str, Any]] = {
        "a": {"Weights": {"Passing": 3, "Warning": 1}, "Meta": {"zone": "east"}},
        "b": {"Weights": {"Passing": 1, "Warning": 1}, "Meta": {"zone": "east"}},
        "w": {"Weights": {"Passing": 4, "Warning": 1}, "Meta": {"zone": "west"}},
    }
    async with named("abw") as web, ConsulAgent(program, tmp_path) as agent:
        for name, upstream in web.items():
            await agent.register("web", f"web-{name}", upstream.port, **facts[name])
        routes = routes_file({}, {"match": {"path_prefix": "/"}, "service": "web"})
        consul = {"registry": "consul", "consul_address": agent.address, "zone": "east"}
        gateway = RunningGateway(routes, face="fast", folder=tmp_path / "gateway", **consul)
        async with gateway:
            fleet = gateway.gateway.engine.fleets["web"]
            await wait_until(lambda: len(fleet.members) == 3)
            got = await shares(gateway)

    assert got.keys() == {"a", "b"}
    assert got["a"] == pytest.approx(0.75, abs=0.1)
