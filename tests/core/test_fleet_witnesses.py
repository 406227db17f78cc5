"""Whom the instances of a service have served, as far as failures need to know."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network

from gateway.core.doubts import Asker
from gateway.core.fleet import Fleet, Member
from gateway.core.message import Request
from gateway.core.model import Instance, Snapshot
from gateway.core.peer import Listener, Peer, TrustedProxies
from gateway.core.policy import BreakerPolicy

NOW_S = 1000.0
POLICY = BreakerPolicy(window_s=10.0)
ONE, OTHER = b"192.0.2.1", b"192.0.2.2"
PEERS = {client: Peer(client, b"http", is_trusted=False) for client in (ONE, OTHER)}
PROXY = Peer(
    b"10.0.0.1",
    b"http",
    is_trusted=True,
    listener=Listener(proxies=TrustedProxies((ip_network("10.0.0.0/8"),))),
)


def of(client: bytes) -> Request:
    request = Request(b"GET", b"/", b"", b"")
    request.peer = PEERS[client]
    return request


def fleet_of_one() -> tuple[Fleet[None], Member[None]]:
    fleet: Fleet[None] = Fleet("web", lambda _: None, breaker=POLICY)
    instance = Instance(key="a@127.0.0.1:80", id="a", host="127.0.0.1", port=80)
    fleet.apply(Snapshot(service="web", instances=(instance,), source="test"), NOW_S)
    (member,) = fleet.members.values()
    return fleet, member


def serve(member: Member[None], client: bytes, now_s: float) -> None:
    request = of(client)
    if request.peer is not member.peer:
        member.serves_another(request)
    member.observe(0.1, now_s)


def asker(member: Member[None], client: bytes, asked_at_s: float, now_s: float) -> Asker:
    return member.asker_of(of(client), asked_at_s, now_s)


def test_a_failure_is_doubted_if_another_client_was_served_last() -> None:
    _, member = fleet_of_one()
    serve(member, OTHER, NOW_S)

    assert asker(member, ONE, NOW_S, NOW_S + 1) == Asker(ONE, is_doubted=True)
    assert asker(member, OTHER, NOW_S, NOW_S + 1) == Asker(OTHER, is_doubted=False)


def test_a_failure_is_doubted_if_another_client_was_served_while_it_was_waited_for() -> None:
    _, member = fleet_of_one()
    serve(member, OTHER, NOW_S)

    assert asker(member, ONE, NOW_S - 1, NOW_S + 60).is_doubted
    assert not asker(member, ONE, NOW_S + 1, NOW_S + 60).is_doubted


def test_who_is_served_by_and_by_is_noted_once_a_second() -> None:
    fleet, member = fleet_of_one()
    serve(member, OTHER, NOW_S)
    fleet.refresh(NOW_S + 0.5)
    fleet.refresh(NOW_S + 1.5)
    serve(member, ONE, NOW_S + 2)

    assert asker(member, ONE, NOW_S + 2, NOW_S + 10).is_doubted
    assert not asker(member, ONE, NOW_S + 2, NOW_S + 11).is_doubted
    assert member.peer is None


def test_when_somebody_was_served_is_not_moved_by_a_failure() -> None:
    _, member = fleet_of_one()
    serve(member, OTHER, NOW_S)

    member.note_failure("head_timeout", "late", 30.0, NOW_S + 30)

    assert not asker(member, ONE, NOW_S + 29, NOW_S + 30).is_doubted


def test_another_policy_has_another_window() -> None:
    fleet, member = fleet_of_one()
    serve(member, OTHER, NOW_S)

    fleet.adopt(dataclasses.replace(POLICY, window_s=100.0))

    assert asker(member, ONE, NOW_S + 50, NOW_S + 50).is_doubted


def test_who_was_served_before_is_known_however_often_another_was_served_since() -> None:
    _, member = fleet_of_one()
    serve(member, OTHER, NOW_S)
    serve(member, OTHER, NOW_S + 1)

    for number in range(100):
        serve(member, ONE, NOW_S + 2 + number / 100)

    assert asker(member, ONE, NOW_S + 1, NOW_S + 20).is_doubted
    assert not asker(member, ONE, NOW_S + 1.5, NOW_S + 20).is_doubted
    assert asker(member, OTHER, NOW_S + 2.9, NOW_S + 20).is_doubted


def test_clients_behind_one_trusted_proxy_are_witnesses_for_each_other() -> None:
    _, member = fleet_of_one()
    for client in (OTHER, ONE, ONE):
        request = behind_the_proxy(client)
        assert request.peer is not member.peer
        member.serves_another(request)
        member.observe(0.1, NOW_S)

    assert member.asker_of(behind_the_proxy(ONE), NOW_S, NOW_S + 1) == Asker(ONE, is_doubted=True)


def behind_the_proxy(client: bytes) -> Request:
    request = of(ONE)
    request.peer = PROXY
    request.received = {b"x-forwarded-for": client}
    return request
