"""One check of one instance, against instances that answer as scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.model import Instance
from gateway.core.policy import HealthCheckPolicy, StatusRange
from gateway.health.probe import probe
from gateway.proxy.tls import TlsClient
from tests.fakes.peer import Action, Ended
from tests.fakes.scenes import (
    chunked,
    close,
    drip,
    half_body,
    head,
    interim,
    play,
    reply,
    reset,
    respond,
    stall,
    until_closed,
)
from tests.fakes.tls import Authority, TlsInstance
from tests.fakes.upstream import ScriptedUpstream, blackhole
from tests.fakes.waiting import PATIENCE_S

HTTP = HealthCheckPolicy(path="/health?deep=1", timeout_s=2.0)
SOON = HealthCheckPolicy(path="/health", timeout_s=0.05)
TCP = HealthCheckPolicy(type="tcp", timeout_s=0.05)


@pytest.fixture
async def web() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def at(port: int, *, host: str = "127.0.0.1", scheme: str = "http") -> Instance:
    return Instance(key="web", id="web", host=host, port=port, scheme=scheme)


async def test_it_asks_as_the_policy_says_over_a_connection_of_its_own(
    web: ScriptedUpstream,
) -> None:
    policy = HealthCheckPolicy(path="/health?deep=1", host="shop.example", headers=(("X-A", "b"),))

    assert await probe(at(web.port), policy, None) is None
    assert await probe(at(web.port), HTTP, None) is None

    first, second = web.requests
    assert (first.method, first.target) == (b"GET", b"/health?deep=1")
    assert (first.values(b"host"), first.values(b"x-a")) == ([b"shop.example"], [b"b"])
    assert second.values(b"host") == [web.authority.encode()]
    assert second.values(b"connection") == [b"close"]
    assert second.values(b"user-agent") == [b"gateway-health-check"]
    assert len(web.connections) == 2


async def test_a_header_of_the_policy_takes_the_place_of_ours(web: ScriptedUpstream) -> None:
    policy = HealthCheckPolicy(path="/", headers=(("user-agent", "probe/1"),))

    await probe(at(web.port), policy, None)

    assert web.requests[0].values(b"user-agent") == [b"probe/1"]


@pytest.mark.parametrize(
    ("status", "expect", "why"),
    [
        (200, (StatusRange(200, 399),), None),
        (302, (StatusRange(200, 399),), None),
        (503, (StatusRange(200, 399),), "/health: 503"),
        (302, (StatusRange(200, 299),), "/health: 302"),
        (401, (StatusRange(200, 299), StatusRange(401, 401)), None),
    ],
)
async def test_the_status_decides(
    web: ScriptedUpstream,
    status: int,
    expect: tuple[StatusRange, ...],
    why: str | None,
) -> None:
    web.on_request(respond(status, headers=[(b"Location", b"http://127.0.0.1:1/")]))
    policy = HealthCheckPolicy(path="/health", expect=expect)

    assert why == await probe(at(web.port), policy, None)


async def test_interim_answers_are_not_the_answer(web: ScriptedUpstream) -> None:
    web.on_request(play(interim(103), respond(503)))

    assert await probe(at(web.port), HTTP, None) == "/health?deep=1: 503"


async def test_interim_answers_without_end_are_not_read_for_ever(web: ScriptedUpstream) -> None:
    web.on_request(play(*[interim(103)] * 31, respond()))
    assert await probe(at(web.port), HTTP, None) is None

    web.on_request(play(*[interim(103)] * 32, respond()))
    assert await probe(at(web.port), HTTP, None) == "/health?deep=1: endless interim answers"


async def test_a_cookie_is_not_sent_back(web: ScriptedUpstream) -> None:
    web.on_request(respond(headers=[(b"Set-Cookie", b"a=b")]))

    for _ in range(2):
        await probe(at(web.port), HTTP, None)

    assert web.requests[1].values(b"cookie") == []


@pytest.mark.parametrize(
    "answer",
    [
        respond(body=b"x" * 5000),
        respond(204),
        respond(503, b"no"),
        chunked(b"one", b"two"),
        until_closed(b"all"),
        drip(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        play(interim(103), drip(head(200, [(b"Content-Length", b"3")])), reply(b"ok!")),
    ],
    ids=["length", "none", "failing", "chunked", "closed", "drop by drop", "late"],
)
async def test_a_short_answer_is_read_to_its_end(web: ScriptedUpstream, answer: Action) -> None:
    """What is reset with data on its way shows up as an error in the log of the instance."""
    web.on_request(answer)

    await probe(at(web.port), HTTP, None)

    await web.wait_until(lambda: web.connections[0].ended is not None)
    assert web.connections[0].ended is not Ended.RESET_BY_PEER


async def test_a_long_answer_is_cut_off(web: ScriptedUpstream) -> None:
    web.on_request(respond(body=b"x" * 65537))

    assert await probe(at(web.port), HTTP, None) is None
    await web.wait_until(lambda: web.connections[0].ended is not None)


async def test_the_end_of_the_body_is_not_waited_for(web: ScriptedUpstream) -> None:
    web.on_request(play(half_body(), stall()))

    assert await probe(at(web.port), HTTP, None) is None
    await web.wait_until(lambda: not web.connections[0].is_open())


@pytest.mark.parametrize(
    ("scene", "policy", "why"),
    [
        (stall(), SOON, "/health: no result within 50ms"),
        (close(), HTTP, "/health?deep=1: closed without an answer"),
        (reset(), HTTP, "/health?deep=1: connection reset by peer"),
        (reply(b"HELLO\r\n\r\n"), HTTP, "/health?deep=1: what came back is not HTTP/1.1"),
        (
            play(reply(b"HTTP/1.1 " + b"2" * 70_000), stall()),
            HTTP,
            "/health?deep=1: what came back is not HTTP/1.1",
        ),
    ],
    ids=["frozen", "closed", "reset", "not HTTP", "endless"],
)
async def test_an_answer_that_is_none_is_told_in_words(
    web: ScriptedUpstream, scene: Action, policy: HealthCheckPolicy, why: str
) -> None:
    web.on_request(scene)

    assert (await probe(at(web.port), policy, None) or "").startswith(why)


async def test_tcp_only_connects(web: ScriptedUpstream) -> None:
    assert await probe(at(web.port, scheme="https"), TCP, None) is None
    await web.wait_until(lambda: len(web.connections) == 1)
    await web.wait_until(lambda: not web.connections[0].is_open())
    assert web.requests == []


@pytest.mark.parametrize("policy", [HTTP, TCP], ids=["http", "tcp"])
async def test_a_refused_connection_is_told_as_such(
    web: ScriptedUpstream, policy: HealthCheckPolicy
) -> None:
    await web.refuse()

    why = await probe(at(web.port), policy, None)

    assert why is not None
    assert why.endswith(": connection refused")


@pytest.mark.parametrize("policy", [SOON, TCP], ids=["http", "tcp"])
async def test_a_connection_that_never_stands_takes_no_longer_than_the_timeout(
    policy: HealthCheckPolicy,
) -> None:
    async with blackhole() as port, asyncio.timeout(PATIENCE_S):
        why = await probe(at(port), policy, None)

    assert why is not None
    assert why.endswith("no result within 50ms")


@pytest.mark.parametrize("host", ["::1%", "a..b", "x" * 70])
async def test_an_address_that_is_none_is_a_failure_and_no_crash(host: str) -> None:
    for policy in (HTTP, HealthCheckPolicy(type="tcp")):
        assert await probe(at(9, host=host), policy, None) is not None


# --- Over TLS ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("web.internal", None),
        ("other.internal", "/health?deep=1: its certificate is not accepted: Hostname mismatch"),
    ],
)
async def test_an_instance_over_tls_is_verified_for_the_name_that_requests_go_by(
    authority: Authority, name: str, why: str | None
) -> None:
    secured = TlsClient(authority.client_context(), name)
    async with TlsInstance(authority.instance_context("web.internal"), closes=True) as web:
        found = await probe(at(web.port, scheme="https"), HTTP, secured)

    assert (found or "")[: len(why or "")] == (why or "")
    assert (found is None) == (why is None)
    if why is None:
        assert [heard.server_name for heard in web.heard] == ["web.internal"]


async def test_an_instance_that_speaks_no_tls_fails(
    authority: Authority, web: ScriptedUpstream
) -> None:
    web.on_connect(play(reply(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close()))

    why = await probe(
        at(web.port, scheme="https"), HTTP, TlsClient(authority.client_context(), "web.internal")
    )

    assert why is not None
    assert "SSL" in why
