"""Limits on connections, counted from accept to close."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from gateway.core.message import Peer
from gateway.edge.places import MOST_REFUSED, Places

ONE, OTHER = (Peer(name, b"http", is_trusted=False) for name in (b"192.0.2.1", b"192.0.2.2"))
PROXY = Peer(b"10.0.0.1", b"http", is_trusted=True)
NOWHERE = Peer(b"", b"http", is_trusted=False)


def places(max_connections: int = 100, max_per_address: int = 0) -> Places:
    return Places(max_connections=max_connections, max_per_address=max_per_address)


def test_a_place_that_is_left_is_free_for_the_next_one() -> None:
    both = places(max_connections=1)
    first, second = both.enter(ONE), both.enter(OTHER)
    assert (first.refusal, second.refusal) == (None, "there are 1 connections already")

    second.leave()
    first.leave()
    first.leave()  # a connection that ends in two ways leaves once

    assert both.enter(OTHER).refusal is None
    assert repr(both) == "<Places 1 taken, 0 refused>"


def test_one_address_has_so_many_and_others_are_not_concerned() -> None:
    limited = places(max_per_address=1)
    first = limited.enter(ONE)
    refused = limited.enter(ONE)

    assert limited.enter(OTHER).refusal is None
    assert refused.refusal == "there are 1 from this address already"
    first.leave()
    assert limited.enter(ONE).refusal is None  # whoever was refused takes nobody's place


@pytest.mark.parametrize("peer", [PROXY, NOWHERE])
def test_peers_behind_whom_many_may_stand_are_not_counted_by_address(peer: Peer) -> None:
    limited = places(max_per_address=1)

    assert [limited.enter(peer).refusal for _ in range(3)] == [None] * 3
    assert limited.count == 3


def test_a_connection_that_a_proxy_names_counts_for_the_client_from_then_on() -> None:
    limited = places(max_per_address=1)
    named = limited.enter(PROXY)
    named.name(ONE)
    second = limited.enter(PROXY)
    second.name(ONE)

    assert (named.refusal, second.refusal) == (None, "there are 1 from this address already")
    assert (limited.count, limited.refused_count) == (1, 1)
    second.name(OTHER)  # what was refused stays so
    assert second.refusal is not None
    second.leave()
    named.leave()
    assert (limited.count, limited.refused_count) == (0, 0)
    assert limited.enter(ONE).refusal is None


def test_only_a_few_are_refused_with_words_at_once() -> None:
    full = places(max_connections=0)
    refused = [full.enter(ONE) for _ in range(MOST_REFUSED)]
    assert not full.is_crowded

    one_more = full.enter(ONE)
    assert full.is_crowded
    one_more.leave()
    assert not full.is_crowded
    assert all(one.refusal for one in refused)


def test_refusals_are_logged_once_a_minute_with_their_number() -> None:
    full = places(max_connections=0)
    with capture_logs() as events:
        for now_s in (0.0, 1.0, 59.0, 60.0, 61.0):
            full.log_refusal("there are 0 connections already", now_s)

    assert [(one["event"], one["count"]) for one in events] == [
        ("connections_refused", 1),
        ("connections_refused", 3),
    ]
