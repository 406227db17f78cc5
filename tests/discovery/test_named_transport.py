"""Consul by name: its addresses are tried, and a dead name is a named trouble."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway.core.watch import Trouble
from gateway.discovery.consul import Consul
from gateway.discovery.consul_options import ConsulOptions
from gateway.discovery.source import SourceError
from tests.fakes.consul import FakeConsul
from tests.fakes.waiting import PATIENCE_S

_ask_the_system = socket.getaddrinfo


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as running:
        await running.register("web", "a", 8001)
        yield running


def by_name(fake: FakeConsul) -> ConsulOptions:
    port = fake.address.rpartition(":")[2]
    return ConsulOptions(address=f"http://consul.example:{port}", connect_timeout_s=0.5)


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let consul.example have these addresses."""

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Sequence[Any]:
        if host != "consul.example":
            return _ask_the_system(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


async def test_all_addresses_are_tried_and_the_host_stays_the_name(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, "127.0.0.3", "127.0.0.2", "127.0.0.1")
    options = by_name(fake)
    async with Consul(options) as consul:
        answer = await consul.poll.query("web", index=0)

    assert len(answer.instances) == 1
    assert fake.questions[0].headers["host"] == options.address.removeprefix("http://")


async def test_a_connection_is_kept_though_its_name_is_looked_up_again(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, "127.0.0.1")
    async with Consul(by_name(fake)) as consul:
        for _ in range(3):
            await consul.poll.query("web", index=0)
        assert fake.connection_count == 1


async def test_when_no_address_answers_it_is_unreachable(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, "127.0.0.2", "127.0.0.3")
    async with Consul(by_name(fake)) as consul:
        with pytest.raises(SourceError) as caught:
            await consul.poll.query("web", index=0)

    assert caught.value.trouble is Trouble.UNREACHABLE


async def test_a_name_that_nobody_answers_for_is_unreachable_in_time(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def never(*_: Any, **__: Any) -> Sequence[Any]:
        released.wait(PATIENCE_S)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    async with Consul(by_name(fake)) as consul:
        with pytest.raises(SourceError) as caught:
            await consul.poll.query("web", index=0)
    released.set()

    assert caught.value.trouble is Trouble.UNREACHABLE
    assert "no answer about the name 'consul.example'" in caught.value.detail


async def test_a_name_that_does_not_exist_is_unreachable(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> Sequence[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with Consul(by_name(fake)) as consul:
        with pytest.raises(SourceError) as caught:
            await consul.poll.query("web", index=0)

    assert caught.value.trouble is Trouble.UNREACHABLE
    assert "consul.example" in caught.value.detail
