"""Limits on connections, counted from accept to close."""

from __future__ import annotations

from math import inf

import pytest
from structlog.testing import capture_logs

from gateway.core.message import Peer
from gateway.edge.places import Place, Places
from gateway.open_files import MOST_BESIDE

ONE, OTHER = (Peer(name, b"http", is_trusted=False) for name in (b"192.0.2.1", b"192.0.2.2"))
PROXY = Peer(b"10.0.0.1", b"http", is_trusted=True)
NOWHERE = Peer(b"", b"http", is_trusted=False)


def places(max_connections: int = 100, max_per_address: int = 0) -> Places:
    return Places(
        max_connections=max_connections,
        max_per_address=max_per_address,
        most_beside=MOST_BESIDE,
        tick=lambda: 0.0,
    )


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
    refused = [full.enter(ONE) for _ in range(MOST_BESIDE)]
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


class Kept:
    """A connection that was idle since then; `ended` says how it gave way."""

    def __init__(self, spare_since_s: float = 1.0) -> None:
        self.spare_since_s = spare_since_s
        self.ended: list[str] = []

    def give_way(self, *, at_once: bool) -> None:
        self.ended.append("dropped" if at_once else "closed")


def held(both: Places, holder: Kept, peer: Peer = ONE) -> Place:
    place = both.enter(peer)
    assert place.refusal is None
    place.holder = holder
    return place


def test_when_all_places_are_taken_the_longest_idle_connection_gives_way() -> None:
    both = places(max_connections=3)
    longer, busy, shorter = Kept(1.0), Kept(inf), Kept(2.0)
    gave_way, _, _ = [held(both, one) for one in (shorter, busy, longer)][::-1]

    new = both.enter(OTHER)

    assert new.refusal is None
    assert (longer.ended, busy.ended, shorter.ended) == (["closed"], [], [])
    assert (both.count, both.giving_way_count) == (3, 1)
    gave_way.name(OTHER)  # whoever has no place any more is counted for nobody
    gave_way.leave()
    assert (both.count, both.giving_way_count) == (3, 0)


def test_where_all_are_in_use_or_have_nothing_to_close_the_new_one_is_refused() -> None:
    both = places(max_connections=2)
    held(both, Kept(inf))
    both.enter(ONE)

    assert both.enter(OTHER).refusal == "there are 2 connections already"


def test_nobody_gives_way_for_one_that_has_too_many_itself() -> None:
    both = places(max_connections=2, max_per_address=1)
    mine, other = Kept(), Kept()
    held(both, mine)
    held(both, other, OTHER)

    assert both.enter(ONE).refusal == "there are 1 from this address already"
    assert (mine.ended, other.ended) == ([], [])


def test_a_place_that_was_given_up_counts_no_more_for_its_address() -> None:
    both = places(max_connections=1, max_per_address=1)
    held(both, Kept())
    held(both, Kept(2.0), OTHER)

    assert held(both, Kept(3.0)).refusal is None


def test_only_so_many_end_gently_at_once() -> None:
    """Those hold descriptors beside the limit: a client over TLS may take its time to end."""
    both = places(max_connections=1)
    crowd = [Kept(float(number)) for number in range(MOST_BESIDE + 2)]
    for one in crowd:
        held(both, one)

    assert [one.ended for one in crowd] == [["closed"]] * MOST_BESIDE + [["dropped"], []]
