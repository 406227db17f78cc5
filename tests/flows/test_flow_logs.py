"""One line for each request, and events on transitions, all in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.client import RawClient
from tests.fakes.gateway import ask, routes_to
from tests.fakes.gateway_run import GatewayRun
from tests.fakes.scenes import half_body, play, reset, respond, stall
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.slow


async def test_each_request_leaves_one_line_on_stdout(tmp_path: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with ScriptedUpstream() as web:
        web.on_request(respond(201, b"created"))
        routes = routes_to(web, match={"path_prefix": "/api"}, id="shop")
        async with GatewayRun(routes, tmp_path) as gateway:
            async with RawClient(gateway.port) as client:
                request = ask("/api/x?token=secret", "POST", ("traceparent", trace), body=b"12345")
                await client.send(request)
                await client.read_response()
                await client.send(ask("/nowhere?token=secret"))
                refused = json.loads((await client.read_response()).body)
            await wait_until(lambda: len(gateway.requests) == 2)
            good, bad = gateway.requests
            said = gateway.said

        assert {
            "level": "info",
            "event": "request",
            "method": "POST",
            "path": "/api/x",
            "host": "shop.example",
            "status": 201,
            "bytes_in": 5,
            "bytes_out": 7,
            "client": "127.0.0.1",
            "route": "shop",
            "service": "web",
            "instance": web.authority,
            "attempts": 1,
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        }.items() <= good.items()
        assert 0 < good["upstream_ms"] <= good["duration_ms"] < 1000
        assert (bad["status"], bad["failure"], bad["path"]) == (404, "no_route", "/nowhere")
        assert bad["request_id"] == refused["request_id"] != good["request_id"]
        assert "secret" not in json.dumps([good, bad]) + said


async def test_what_went_wrong_is_in_the_line_and_whose_fault_it_was(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        web.on_request(stall(), play(half_body(), reset()))
        async with GatewayRun(routes_to(web), tmp_path) as gateway:
            async with RawClient(gateway.port) as client:
                await client.send(ask("/left"))
                await web.wait_until(lambda: bool(web.requests))
            async with RawClient(gateway.port) as client:
                await client.send(ask("/cut"))
                await client.expect_reset()
            await wait_until(lambda: len(gateway.requests) == 2)
            left, cut = gateway.requests

    assert (left["status"], left["failure"], left["level"]) == (499, "client_gone", "info")
    assert (cut["status"], cut["failure"]) == (200, "upstream_broke_off")
    assert (cut["level"], cut["bytes_out"]) == ("warning", 4)


async def test_a_breaker_that_opens_is_told_once(tmp_path: Path) -> None:
    async with ScriptedUpstream() as web:
        await web.refuse()
        routes = routes_to(web, service={"circuit_breaker": {"consecutive_failures": 2}})
        async with GatewayRun(routes, tmp_path) as gateway:
            async with RawClient(gateway.port) as client:
                for _ in range(6):
                    await client.send(ask())
                    await client.read_response()
            await wait_until(lambda: len(gateway.requests) == 6)
            await wait_until(lambda: gateway.logged("breaker_opened"))
            opened = gateway.logged("breaker_opened")
            lines = gateway.requests
            said = gateway.said

    assert [(one["service"], one["why"], one["level"]) for one in opened] == [
        ("web", "connect_failed", "warning")
    ]
    assert [line["failure"] for line in lines] == ["connect_failed"] * 2 + ["breakers_open"] * 4
    assert all("event" in json.loads(line) for line in said.splitlines())
