"""What one client meets shuts out no instance that serves others, and any that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, lines_of
from gateway.core.peer import Peer
from gateway.core.policy import BreakerPolicy, Hedge, RetryPolicy, Timeouts
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeConnection

OPEN, CLOSED = BreakerState.OPEN, BreakerState.CLOSED
BREAKER = BreakerPolicy(consecutive_failures=3, min_requests=3, slow_after_s=1.0, open_for_s=10.0)
ONE, OTHER = b"192.0.2.1", b"192.0.2.2"
CLOSING = [Failure.BAD_RESPONSE, Failure.DISCONNECTED_EARLY]
PLAYED = ["late", "503", *CLOSING]


def stage_of(instances: str, retry: RetryPolicy | None = None) -> Stage:
    timeouts = Timeouts(response_s=30.0, request_s=60.0)
    return Stage(
        instances,
        Policies(breaker=BREAKER, retry=retry or RetryPolicy(attempts=1), timeouts=timeouts),
    )


def serve(stage: Stage, client: bytes) -> None:
    stage.client_address = client
    _, connection = stage.sending()
    connection.answer()


def meet(stage: Stage, played: str | Failure, *clients: bytes) -> None:
    """Let each of these have a request in hand at once, and then each meet the same."""
    connections = []
    for client in clients:
        stage.client_address = client
        connections.append(asked(stage)[1])
    if played == "late":
        stage.pass_time(30.0)
        return
    for connection in connections:
        if played == "503":
            connection.answer(503)
        else:
            assert isinstance(played, Failure)
            connection.fail(played)


def asked(stage: Stage) -> tuple[Play, FakeConnection]:
    """Bring a request to "a", whoever has less in hand."""
    for key in "bc":
        if key in stage.fleet.members:
            stage.member(key).in_flight += 100
    try:
        return stage.sending()
    finally:
        for key in "bc":
            if key in stage.fleet.members:
                stage.member(key).in_flight -= 100


@pytest.mark.parametrize("instances", ["a", "ab"])
@pytest.mark.parametrize("played", PLAYED)
def test_what_one_client_meets_is_doubted_while_others_are_served(
    played: str | Failure, instances: str
) -> None:
    stage = stage_of(instances)
    serve(stage, OTHER)
    serve(stage, ONE)

    for _ in range(4):
        if played == "late":
            meets_late_while_another_is_served(stage)
        else:
            meet(stage, played, *[ONE] * 5)

    assert stage.breaker_state("a") is CLOSED
    assert stage.member("a").breaker.failures_in_a_row >= 5
    stage.assert_all_is_settled()


def meets_late_while_another_is_served(stage: Stage) -> None:
    stage.client_address = ONE
    for _ in range(5):
        asked(stage)
    stage.pass_time(15.0)
    stage.client_address = OTHER
    asked(stage)[1].answer()
    stage.pass_time(15.0)


@pytest.mark.parametrize("played", ["late", "503"])
def test_what_the_only_client_meets_shuts_out_even_the_only_instance(played: str) -> None:
    """All requests may come from one address, and the instance may be frozen."""
    stage = stage_of("a")
    serve(stage, ONE)

    meet(stage, played, *[ONE] * 3)

    assert stage.breaker_state("a") is OPEN
    stage.assert_all_is_settled()


@pytest.mark.parametrize("played", CLOSING)
def test_what_closes_on_the_only_client_is_shut_out_if_it_can_be_spared(played: Failure) -> None:
    stage, alone = stage_of("ab"), stage_of("a")

    for one in (stage, alone):
        serve(one, ONE)
        meet(one, played, *[ONE] * 3)

    assert stage.breaker_state("a") is OPEN
    assert alone.breaker_state("a") is CLOSED


@pytest.mark.parametrize("played", PLAYED)
def test_what_several_clients_meet_shuts_out_an_instance(played: str | Failure) -> None:
    stage = stage_of("ab")
    serve(stage, b"192.0.2.9")

    meet(stage, played, ONE, ONE, ONE, OTHER)

    assert stage.breaker_state("a") is OPEN
    assert stage.observer.breaker_changes == ["user-service a open"]


def test_a_frozen_instance_is_shut_out_whoever_was_served_before() -> None:
    """Nobody was served since the requests came, so there is nothing to doubt."""
    stage = stage_of("a")
    serve(stage, OTHER)
    stage.pass_time(0.1)

    meet(stage, "late", *[ONE] * 3)

    assert stage.breaker_state("a") is OPEN


def test_a_connect_that_fails_needs_no_second_client() -> None:
    stage = stage_of("a")
    serve(stage, OTHER)

    stage.client_address = ONE
    for _ in range(3):
        stage.begin()
        stage.pools["a"].refuse()

    assert stage.breaker_state("a") is OPEN


def test_who_was_served_long_ago_is_no_witness() -> None:
    stage = stage_of("a")
    serve(stage, OTHER)
    stage.clock.advance(BREAKER.window_s + 1)

    meet(stage, "503", *[ONE] * 3)

    assert stage.breaker_state("a") is OPEN


def test_who_was_served_is_noted_once_a_second() -> None:
    """Each instance keeps a request for no longer than that."""
    stage = stage_of("a")
    serve(stage, OTHER)
    stage.engine.sweep(stage.clock())
    serve(stage, ONE)

    meet(stage, "503", *[ONE] * 5)

    assert stage.breaker_state("a") is CLOSED


def test_clients_behind_a_trusted_proxy_are_told_apart() -> None:
    stage, untrusted = stage_of("a"), stage_of("a")

    for one, is_trusted in ((stage, True), (untrusted, False)):
        for client, status in ((OTHER, 200), *[(ONE, 503)] * 3):
            play, connection = one.sending()
            request = play.exchange.request
            request.peer = Peer(b"10.0.0.1", b"http", is_trusted=is_trusted)
            request.received = {b"x-forwarded-for": client}
            connection.answer(status)

    assert stage.breaker_state("a") is CLOSED
    assert untrusted.breaker_state("a") is OPEN


def test_an_instance_is_not_left_alone_for_what_it_asks_of_one_client() -> None:
    stage = stage_of("ab")
    serve(stage, OTHER)
    stage.client_address = ONE

    asked_for_rest(stage)
    assert stage.breaker_state("a") is CLOSED
    stage.client_address = OTHER
    asked_for_rest(stage)

    assert (stage.breaker_state("a"), stage.member("a").breaker.is_resting) == (OPEN, True)


def asked_for_rest(stage: Stage) -> None:
    _, connection = asked(stage)
    head = AnswerHead(503, b"", lines_of([(b"Retry-After", b"3")]))
    assert connection.exchange is not None
    connection.exchange.upstream_head(head, stage.clock())


def slow(stage: Stage) -> None:
    _, connection = asked(stage)
    stage.clock.advance(2.0)
    connection.answer()


def given_up(stage: Stage) -> None:
    asked(stage)
    stage.pass_time(0.1)
    stage.pools["b"].connect().answer()


@pytest.mark.parametrize("lets", [slow, given_up])
def test_slow_answers_and_lost_hedges_of_one_client_shut_out_nobody(
    lets: Callable[[Stage], None],
) -> None:
    hedged = RetryPolicy(hedge=Hedge(after_s=0.1)) if lets is given_up else None
    stage, alone = stage_of("ab", hedged), stage_of("ab", hedged)

    for one, others in ((stage, [OTHER]), (alone, [])):
        for _ in range(3):
            for client in others:
                one.member("a").witnesses.note(client, one.clock())
            one.client_address = ONE
            lets(one)

    assert stage.breaker_state("a") is CLOSED
    assert alone.breaker_state("a") is OPEN
