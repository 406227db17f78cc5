"""Requests on their way through gates: who is sent, who waits, who is turned away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, lines_of
from gateway.core.policy import ConcurrencyPolicy, PriorityClass, RetryPolicy, Timeouts
from gateway.proxy.phase import Phase
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeClient

TWO_TUNNELS = 2
ONE = ConcurrencyPolicy(limit=1, queue=2, queue_wait_s=1.0)


def reasons(*plays: Play) -> list[bytes | None]:
    return [play.client.reason for play in plays]


def detail(play: Play) -> str:
    return play.exchange.detail


def refused_count(stage: Stage) -> int:
    (target,) = stage.engine.targets
    assert target.door is not None
    return sum(gate.refused for gate in target.door.gates)


@pytest.fixture(params=["route", "service", "gateway"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Limit to one request at once at each place where that can be said."""
    if request.param == "route":
        return Stage("a", Policies(limit=ONE))
    if request.param == "service":
        return Stage("a", Policies(service_limit=ONE))
    stage = Stage("a")
    stage.engine.loads.limit_all(ONE, max_lag_s=1.0)
    stage.route()
    return stage


def test_without_limits_there_is_no_door() -> None:
    assert [target.door for target in Stage().engine.targets] == [None]


def test_one_after_the_other_gets_in_as_places_come_free(stage: Stage) -> None:
    first, second, third = (stage.begin() for _ in range(3))
    pool = stage.pools["a"]
    assert [one.exchange.phase for one in (second, third)] == [Phase.QUEUED] * 2
    assert len(pool.waiting) == 1

    pool.connect().answer()
    assert (second.exchange.phase, third.exchange.phase) == (Phase.CONNECTING, Phase.QUEUED)
    pool.connect().answer()
    pool.connect().answer()

    assert [one.client.said[0] for one in (first, second, third)] == ["head 200"] * 3
    stage.assert_all_is_settled()


def test_whoever_finds_the_queue_full_is_turned_away_at_once(stage: Stage) -> None:
    plays = [stage.begin() for _ in range(4)]

    assert plays[3].client.head is not None
    assert plays[3].client.reason == b"over_capacity"
    assert (b"Retry-After", b"1") in plays[3].client.head.fields
    assert "has 1 in hand already" in detail(plays[3])


def test_whoever_waits_too_long_is_turned_away_and_its_place_goes_to_another(stage: Stage) -> None:
    stage.begin()
    waiting = stage.begin()

    stage.pass_time(1.0)
    later = stage.begin()
    stage.pools["a"].connect().answer()

    assert reasons(waiting) == [b"over_capacity"]
    assert "came free in 1s" in detail(waiting)
    assert refused_count(stage) == 1
    assert later.exchange.phase is Phase.CONNECTING


def test_a_client_that_leaves_the_queue_leaves_nothing_behind(stage: Stage) -> None:
    stage.begin()
    leaving, staying = stage.begin(), stage.begin()

    leaving.exchange.client_gone(stage.clock())
    stage.pools["a"].connect().answer()

    assert staying.exchange.phase is Phase.CONNECTING
    assert leaving.exchange.failure is Failure.CLIENT_GONE
    assert refused_count(stage) == 0


def test_a_body_that_comes_meanwhile_is_sent_when_its_turn_comes(stage: Stage) -> None:
    stage.begin()
    waiting = stage.begin(b"POST", 5)
    stage.send(waiting, b"hello")
    stage.send_end(waiting)
    pool = stage.pools["a"]

    pool.connect().answer()
    connection = pool.connect()

    assert bytes(connection.sent).endswith(b"\r\n\r\nhello")


def test_requests_that_fail_at_once_make_room_for_all_that_wait() -> None:
    stage = Stage("a", Policies(limit=ConcurrencyPolicy(limit=1, queue=500)))
    stage.begin()
    waiting = [stage.begin() for _ in range(500)]
    stage.publish([])

    stage.pools["a"].connect().answer()

    assert set(reasons(*waiting)) == {b"no_instances"}
    stage.assert_all_is_settled()


def test_who_matters_more_takes_the_place_of_who_matters_less() -> None:
    stage = Stage("a")
    stage.engine.loads.limit_all(ConcurrencyPolicy(limit=1, queue=1), max_lag_s=1.0)
    stage.route(stage.api(), stage.api(b"/vip", PriorityClass.CRITICAL))
    stage.begin()
    usual = stage.begin()

    vip = stage.begin(path=b"/vip")

    assert vip.exchange.phase is Phase.QUEUED
    assert reasons(usual) == [b"over_capacity"]
    assert "others matter more" in detail(usual)


def test_what_is_sheddable_is_refused_while_the_loop_is_late() -> None:
    stage = Stage("a")
    stage.engine.loads.limit_all(ConcurrencyPolicy(), max_lag_s=0.1)
    stage.route(stage.api(), stage.api(b"/sheddable", PriorityClass.SHEDDABLE))

    stage.deadlines.lag_s = 0.25
    usual, shed = stage.begin(), stage.begin(path=b"/sheddable")
    stage.deadlines.lag_s = 0.05
    later = stage.begin(path=b"/sheddable")

    assert usual.exchange.phase is Phase.CONNECTING
    assert reasons(shed) == [b"over_capacity"]
    assert "late by 250ms" in detail(shed)
    assert later.exchange.phase is Phase.CONNECTING


def test_a_place_is_held_until_the_last_attempt_is_over() -> None:
    stage = Stage("ab", Policies(limit=ONE))
    stage.begin()
    waiting = stage.begin()

    phases = []
    stage.pools["a"].refuse()
    phases.append(waiting.exchange.phase)
    stage.pools["b"].connect().answer()
    phases.append(waiting.exchange.phase)

    assert phases == [Phase.QUEUED, Phase.CONNECTING]


def test_a_reload_keeps_who_is_in_and_who_waits() -> None:
    stage = Stage("a", Policies(limit=ONE))
    stage.begin()
    waiting = stage.begin()

    stage.route()
    later = stage.begin()
    stage.pools["a"].connect().answer()

    assert waiting.exchange.phase is Phase.CONNECTING
    assert later.exchange.phase is Phase.QUEUED


def test_an_adaptive_limit_hears_of_answers_and_of_those_that_did_not_come() -> None:
    policies = Policies(
        service_limit=ConcurrencyPolicy(is_adaptive=True),
        timeouts=Timeouts(response_s=1.0),
        retry=RetryPolicy(attempts=1),
    )
    stage = Stage("a", policies)
    gate = stage.engine.loads.gates["user-service"]
    before = gate.limit

    stage.sending()
    stage.pass_time(1.1)

    assert gate.limit < before
    stage.assert_all_is_settled()


# --- Instances -----------------------------------------------------------------------------------


def test_an_instance_that_has_enough_is_passed_over() -> None:
    stage = Stage("ab", Policies(max_per_instance=1))

    stage.begin()
    stage.begin()
    third = stage.begin()

    assert [len(pool.waiting) for pool in stage.pools.values()] == [1, 1]
    assert reasons(third) == [b"over_capacity"]
    assert "each instance of 'user-service' has 1 requests in hand already" in detail(third)


def test_a_full_one_is_no_candidate_for_failover_either() -> None:
    stage = Stage("ab", Policies(max_per_instance=1))
    first = stage.begin()
    stage.begin()

    stage.pools["a"].refuse()

    assert reasons(first) == [b"connect_failed"]


# --- Tunnels -------------------------------------------------------------------------------------


def offer(stage: Stage) -> Play:
    """Let a client ask for a WebSocket."""
    request = stage.request()
    request.upgrade = b"websocket"
    client = FakeClient()
    exchange = stage.engine.exchange(request, client)
    exchange.begin(stage.clock())
    return Play(exchange=exchange, client=client)


def switch(stage: Stage, play: Play) -> None:
    """Let the instance take the offer that waits for a connection."""
    stage.pools["a"].connect()
    head = AnswerHead(101, b"", lines_of([(b"Upgrade", b"websocket")]))
    play.exchange.upstream_switched(head, stage.clock())


def test_a_tunnel_gives_back_its_place_among_requests_when_it_has_switched(stage: Stage) -> None:
    """Ten idle WebSockets kept all others out before."""
    tunnel, waiting = offer(stage), stage.begin()
    assert [waiting.exchange.phase] == [Phase.QUEUED]

    switch(stage, tunnel)
    assert [waiting.exchange.phase] == [Phase.CONNECTING]
    stage.pools["a"].connect().answer()
    tunnel.exchange.client_gone(stage.clock())

    (target,) = stage.engine.targets
    assert [gate.in_flight for gate in target.tunnel_door.gates] == [0]
    stage.assert_all_is_settled()


@pytest.fixture(params=["route", "service", "gateway"])
def tunnelled(request: pytest.FixtureRequest) -> Stage:
    """Limit to two tunnels at each place where that can be said."""
    stage = Stage("a", Policies(max_tunnels=TWO_TUNNELS if request.param == "service" else None))
    if request.param == "gateway":
        stage.engine.loads.limit_all(ConcurrencyPolicy(), max_lag_s=1.0, max_tunnels=TWO_TUNNELS)
    stage.route(replace(stage.api(), max_tunnels=TWO_TUNNELS if request.param == "route" else None))
    return stage


def test_tunnels_have_a_limit_of_their_own_from_the_offer_on(tunnelled: Stage) -> None:
    open_one, asked = offer(tunnelled), offer(tunnelled)
    switch(tunnelled, open_one)
    made_count = len(tunnelled.pools["a"].made)

    refused = offer(tunnelled)

    assert reasons(refused) == [b"over_capacity"]
    assert "has 2 tunnels already" in detail(refused)
    assert len(tunnelled.pools["a"].made) == made_count  # no instance was asked
    assert tunnelled.begin().exchange.phase is Phase.CONNECTING  # others are not concerned
    asked.exchange.client_gone(tunnelled.clock())
    assert offer(tunnelled).exchange.phase is Phase.CONNECTING


def test_an_offer_that_is_answered_in_another_way_is_a_tunnel_no_longer(tunnelled: Stage) -> None:
    for _ in range(3):
        play = offer(tunnelled)
        tunnelled.pools["a"].connect().answer()
        assert play.client.said[0] == "head 200"


def test_a_limit_of_tunnels_stays_over_a_new_configuration(tunnelled: Stage) -> None:
    switch(tunnelled, offer(tunnelled))
    switch(tunnelled, offer(tunnelled))
    (before,) = tunnelled.engine.targets

    tunnelled.route(before.route)

    assert reasons(offer(tunnelled)) == [b"over_capacity"]


def test_tunnels_leave_room_with_their_instance_and_take_connections() -> None:
    stage = Stage("a", Policies(max_per_instance=1))
    tunnel = offer(stage)
    assert reasons(stage.begin()) == [b"over_capacity"]

    switch(stage, tunnel)
    request = stage.begin()
    assert request.exchange.phase is Phase.CONNECTING
    assert stage.member("a").tunnels == 1

    tunnel.exchange.client_gone(stage.clock())
    assert stage.member("a").tunnels == 0
    assert reasons(stage.begin()) == [b"over_capacity"]


# --- Bodies that come slowly ---------------------------------------------------------------------

SMALL_BUFFER = RetryPolicy(buffer_bytes=10)


def gathering(limit: ConcurrencyPolicy = ONE, retry: RetryPolicy = SMALL_BUFFER) -> Stage:
    return Stage("a", Policies(limit=limit, retry=retry, client_body_timeout_s=5.0))


def test_a_body_that_is_not_here_yet_takes_no_place(stage: Stage) -> None:
    """Ten clients at a byte each 8 s kept all others out before."""
    slow = [stage.begin(b"POST", 100) for _ in range(10)]
    for play in slow:
        stage.send(play, b"x")

    other = stage.begin()

    assert {play.exchange.phase for play in slow} == {Phase.GATHERING}
    assert other.exchange.phase is Phase.CONNECTING
    stage.pools["a"].connect().answer()
    for play in slow:
        play.exchange.client_gone(stage.clock())
    stage.assert_all_is_settled()


@pytest.mark.parametrize("length", [5, None])
def test_the_place_is_taken_when_the_body_is_whole(length: int | None) -> None:
    stage = gathering()
    play = stage.begin(b"POST", length)
    stage.send(play, b"hel")
    stage.send(play, b"lo")
    assert stage.pools["a"].waiting == []

    stage.send_end(play)
    connection = stage.pools["a"].connect()

    assert bytes(connection.sent).endswith(b"hello" if length else b"lo\r\n0\r\n\r\n")
    connection.answer()
    stage.assert_all_is_settled()


def test_the_place_is_taken_when_the_buffer_of_the_route_is_full() -> None:
    """Nothing more is read until there is a connection, and nothing is lost."""
    stage = gathering()
    play = stage.begin(b"POST", 20)
    stage.send(play, b"0123456789")
    assert (play.exchange.phase, play.client.is_paused) == (Phase.GATHERING, False)

    stage.send(play, b"a")
    assert (stage.pools["a"].waiting != [], play.client.is_paused) == (True, True)
    connection = stage.pools["a"].connect()
    assert not play.client.is_paused
    stage.send(play, b"bcdefghij")
    stage.send_end(play)

    assert bytes(connection.sent).endswith(b"\r\n\r\n0123456789abcdefghij")


def test_without_a_buffer_the_first_byte_takes_the_place() -> None:
    """For clients that wait for an answer inside of their body."""
    stage = gathering(retry=RetryPolicy(buffer_bytes=0))
    play = stage.begin(b"POST", None)
    stage.send(play, b"a")

    assert bytes(stage.pools["a"].connect().sent).endswith(b"1\r\na\r\n")


def test_who_waits_with_the_body_for_a_100_is_waited_for_by_an_instance() -> None:
    stage = gathering()
    request = stage.request(b"POST", 5)
    request.expects_continue = True
    exchange = stage.engine.exchange(request, FakeClient())
    exchange.begin(stage.clock())

    assert exchange.phase is Phase.CONNECTING


def test_a_full_house_is_told_when_the_body_is_here() -> None:
    stage = gathering(ConcurrencyPolicy(limit=1, queue=0))
    stage.begin()
    play = stage.begin(b"POST", 5)
    stage.send(play, b"hello")
    assert play.client.said == []

    stage.send_end(play)

    assert reasons(play) == [b"over_capacity"]


def test_a_body_that_comes_to_a_halt_before_its_place_is_the_clients_fault() -> None:
    stage = gathering()
    play = stage.begin(b"POST", 5)
    stage.pass_time(4.0)
    stage.send(play, b"h")
    stage.pass_time(4.0)
    assert play.client.said == []

    stage.pass_time(1.0)

    assert reasons(play) == [b"request_timeout"]
    assert stage.member("a").in_flight == 0
    stage.assert_all_is_settled()


def test_a_body_that_comes_too_slowly_never_takes_a_place() -> None:
    stage = gathering(retry=RetryPolicy(buffer_bytes=1000))
    play = stage.begin(b"POST", 5000)
    for _ in range(14):
        stage.pass_time(4.0)
        stage.send(play, b"x")
    assert play.client.said == []

    stage.pass_time(4.0)

    assert reasons(play) == [b"request_timeout"]
    assert "slower than min_rate" in detail(play)
    assert stage.pools == {} or not stage.pools["a"].made
    stage.assert_all_is_settled()


def test_a_body_that_is_wrong_never_takes_a_place() -> None:
    stage = gathering()
    long, short = stage.begin(b"POST", 5), stage.begin(b"POST", 5)
    stage.send(long, b"hello!")
    stage.send(short, b"hell")
    stage.send_end(short)

    assert reasons(long, short) == [b"bad_request"] * 2
    stage.assert_all_is_settled()
