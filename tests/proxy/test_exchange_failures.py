"""Every row of the failure table that the engine can produce: status, reason, blame, what next."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.core.breaker import BreakerState
from gateway.core.failure import VERDICTS, Failure
from gateway.core.model import Status
from gateway.core.policy import BreakerPolicy, RetryPolicy
from gateway.core.routing import Route, RouteMatch
from gateway.proxy.phase import Phase
from tests.fakes.engine import DATE, SERVICE, Policies, Stage, instance
from tests.fakes.sides import FakeClient

ONE_STRIKE = Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0))
ANSWERS_OF_OURS = (
    Failure.BAD_REQUEST,
    Failure.OVER_CAPACITY,
    Failure.DRAINING,
    Failure.HEADERS_TOO_LARGE,
    Failure.NOT_IMPLEMENTED,
)


def reason_of(failure: Failure) -> bytes:
    return failure.value.encode()


# --- Nothing fails -------------------------------------------------------------------------------


def test_an_answer_is_relayed_as_it_came() -> None:
    stage = Stage()
    play, connection = stage.sending()

    connection.head(200)
    connection.body(b"one")
    connection.body(b"two")
    connection.end([(b"Checksum", b"1"), (b"Content-Length", b"9")])

    assert ["head 200", "body", "body", "end"] == play.client.said
    assert b"onetwo" == bytes(play.client.body)
    assert [(b"Checksum", b"1")] == play.client.trailers
    assert "reusable" == connection.ending
    assert (None, 200, 6) == (play.exchange.failure, play.exchange.status, play.exchange.sent_bytes)
    assert [play.exchange] == stage.observer.settled_ones
    stage.assert_all_is_settled()


def test_the_request_is_written_whole_and_in_order() -> None:
    stage = Stage()

    _, connection = stage.sending(b"PUT", 2)

    assert (
        b"PUT /api/x?q=1 HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nContent-Length: 2\r\n"
        b"X-Forwarded-For: 192.0.2.1\r\nX-Real-Ip: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: example.com\r\nX-Request-Id: id-1\r\nVia: 1.1 gateway\r\n\r\n"
    ) == bytes(connection.sent)


def test_the_path_is_matched_and_sent_in_its_normal_form() -> None:
    stage = Stage()
    play = stage.begin(path=b"/x/../%61pi/a%2Fb")

    connection = stage.pools["a"].connect()

    assert connection.sent.startswith(b"GET /api/a%2Fb?q=1 HTTP/1.1\r\n")
    assert play.exchange.is_routed


@pytest.mark.parametrize(("has_date", "added"), [(True, 0), (False, 1)], ids=["dated", "undated"])
def test_date_is_added_where_the_instance_sent_none(
    has_date: bool,  # noqa: FBT001 -- a parameter of the test
    added: int,
) -> None:
    stage = Stage()
    _, connection = stage.sending()

    head = connection.head(has_date=has_date)

    assert added == head.fields.count(DATE)


def test_interim_answers_are_relayed_as_they_come() -> None:
    stage = Stage()
    play, connection = stage.sending()

    connection.interim(100)
    connection.interim(103)
    connection.answer()

    assert ["interim 100", "interim 103", "head 200", "body", "end"] == play.client.said


# --- The gateway refuses -------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ANSWERS_OF_OURS, ids=lambda one: one.value)
def test_what_the_face_rejects_is_answered_and_settled(failure: Failure) -> None:
    stage = Stage()
    client = FakeClient()
    exchange = stage.engine.exchange(stage.request(), client)

    exchange.reject(failure, "because", stage.clock())

    assert [f"head {VERDICTS[failure].status}", "body", "end"] == client.said
    assert reason_of(failure) == client.reason
    assert "because" == json.loads(client.body)["detail"]
    assert (failure, Phase.SETTLED) == (exchange.failure, exchange.phase)
    assert 1 == client.flushes
    stage.assert_all_is_settled()


@pytest.mark.parametrize("failure", [Failure.DRAINING, Failure.OVER_CAPACITY])
def test_a_gateway_that_is_busy_says_when_to_come_again(failure: Failure) -> None:
    stage = Stage()
    client = FakeClient()
    exchange = stage.engine.exchange(stage.request(), client)

    exchange.reject(failure, "because", stage.clock())

    assert client.head is not None
    assert (b"Retry-After", b"1") in client.head.fields


def test_a_path_that_can_be_read_in_two_ways_is_a_bad_request() -> None:
    stage = Stage()

    play = stage.begin(path=b"/api/..%2fadmin")

    assert ["head 400", "body", "end"] == play.client.said
    assert b"bad_request" == play.client.reason
    stage.assert_all_is_settled()


def test_no_route_is_a_404() -> None:
    stage = Stage()

    play = stage.begin(path=b"/other")

    assert ["head 404", "body", "end"] == play.client.said
    assert b"no_route" == play.client.reason
    assert not play.exchange.is_routed
    assert "<Exchange <Request GET /other> SETTLED, no route>" == repr(play.exchange)
    stage.assert_all_is_settled()


def test_a_method_that_no_route_takes_is_a_405_with_allow() -> None:
    stage = Stage()
    methods = frozenset({b"GET", b"HEAD"})
    match = RouteMatch(path=b"/api", methods=methods)
    stage.route(Route(id="reading", match=match, service=SERVICE))

    play = stage.begin(b"POST")

    assert ["head 405", "body", "end"] == play.client.said
    assert play.client.head is not None
    assert (b"Allow", b"GET, HEAD") in play.client.head.fields


def test_a_refusal_to_head_has_no_body() -> None:
    stage = Stage()

    play = stage.begin(b"HEAD", path=b"/other")

    assert ["head 404", "end"] == play.client.said
    assert 0 == play.exchange.sent_bytes


@pytest.mark.parametrize("length", [11, None])
def test_a_body_over_the_routes_limit_is_a_413_whether_it_says_so_or_not(
    length: int | None,
) -> None:
    stage = Stage()
    stage.route(replace(stage.api(), max_body_bytes=10))

    play = stage.begin(b"PUT", length)
    if length is None:
        stage.send(play, b"ten bytes!")
        assert [] == play.client.said
        stage.send(play, b"1")

    assert ["head 413", "body", "end"] == play.client.said
    assert b"body_too_large" == play.client.reason
    stage.assert_all_is_settled()


@pytest.mark.parametrize(
    ("instances", "failure"), [(None, Failure.CATALOG_COLD), ("", Failure.NO_INSTANCES)]
)
def test_a_route_without_instances_is_a_503_that_says_why(
    instances: str | None, failure: Failure
) -> None:
    stage = Stage(instances)

    play = stage.begin()

    assert ["head 503", "body", "end"] == play.client.said
    assert reason_of(failure) == play.client.reason
    assert play.client.head is not None
    assert (b"Retry-After", b"1") in play.client.head.fields
    stage.assert_all_is_settled()


def test_sick_instances_are_counted_in_the_detail() -> None:
    stage = Stage(None)
    stage.publish([instance("a", status=Status.CRITICAL), instance("b", status=Status.MAINTENANCE)])

    play = stage.begin()

    assert "1 critical, 1 maintenance" in play.exchange.detail
    assert Failure.NO_INSTANCES is play.exchange.failure


def test_open_breakers_are_a_503_with_the_time_of_the_next_trial() -> None:
    stage = Stage("ab", ONE_STRIKE)
    stage.open_breaker("a")
    stage.clock.advance(4.0)
    stage.open_breaker("b")

    play = stage.begin()

    assert b"breakers_open" == play.client.reason
    assert play.client.head is not None
    assert (b"Retry-After", b"1") in play.client.head.fields
    stage.assert_all_is_settled()


# --- The instance fails, and nobody else can be asked --------------------------------------------


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Failure.CONNECT_FAILED, 502),
        (Failure.TLS_FAILED, 502),
    ],
)
def test_a_connection_that_cannot_be_made_counts(failure: Failure, status: int) -> None:
    stage = Stage("a", ONE_STRIKE)
    play = stage.begin()

    stage.pools["a"].refuse(failure)

    assert [f"head {status}", "body", "end"] == play.client.said
    assert reason_of(failure) == play.client.reason
    assert BreakerState.OPEN is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_what_is_sent_to_many_and_closed_on_does_not_shut_out_an_only_instance() -> None:
    stage = Stage("a", ONE_STRIKE)

    for number in range(20):
        stage.client_address = b"192.0.2.%d" % number
        _, connection = stage.sending()
        connection.fail(Failure.DISCONNECTED_EARLY)

    assert BreakerState.CLOSED is stage.breaker_state("a")


def test_a_body_that_is_here_but_not_yet_written_is_an_upload_still() -> None:
    stage = Stage("a", ONE_STRIKE)
    play, connection = stage.sending(b"PUT", 4)
    connection.pauses()
    stage.send(play, b"some")
    stage.send_end(play)

    connection.fail(Failure.DISCONNECTED_EARLY)

    assert b"send_failed" == play.client.reason
    assert 0 == stage.member("a").breaker.failures_in_a_row


def test_a_connection_that_ends_inside_the_upload_is_send_failed_and_blames_nobody() -> None:
    """A client chooses what it sends, and so whether an instance refuses it."""
    stage = Stage("a", ONE_STRIKE)
    play, connection = stage.sending(b"POST", 9)
    stage.clock.advance(20)
    stage.send(play, b"some")
    stage.clock.advance(0.9)

    connection.fail(Failure.DISCONNECTED_EARLY)

    assert b"send_failed" == play.client.reason
    assert 0 == stage.member("a").breaker.failures_in_a_row


def test_an_instance_that_tires_of_a_late_client_is_not_blamed() -> None:
    """Else a few clients that stop inside their uploads would shut it out."""
    stage = Stage("ab", ONE_STRIKE)
    play, connection = stage.sending(b"PUT", 9)
    stage.clock.advance(20)
    stage.send(play, b"some")
    stage.clock.advance(1.1)

    connection.fail(Failure.DISCONNECTED_EARLY)

    assert b"upload_stalled" == play.client.reason
    assert stage.pools["b"].waiting == []
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_an_instance_that_takes_no_more_and_closes_is_not_blamed() -> None:
    """The client is silent because the gateway stopped it: the request failed while it was sent."""
    stage = Stage("a", ONE_STRIKE)
    play, connection = stage.sending(b"PUT", 9)
    stage.send(play, b"some")
    connection.pauses()
    stage.clock.advance(1.5)

    connection.fail(Failure.DISCONNECTED_EARLY)

    assert b"send_failed" == play.client.reason
    assert 0 == stage.member("a").breaker.failures_in_a_row


def test_a_slow_connect_makes_no_client_late() -> None:
    stage = Stage("a", ONE_STRIKE)
    play = stage.begin(b"PUT", 9)
    stage.clock.advance(1.5)
    stage.send(play, b"some")

    stage.pools["a"].connect().fail(Failure.DISCONNECTED_EARLY)

    assert b"send_failed" == play.client.reason


def test_a_stale_connection_is_nobodys_fault() -> None:
    stage = Stage("a", ONE_STRIKE)
    play, connection = stage.sending(b"POST")

    connection.fail(Failure.STALE_CONNECTION)

    assert ["head 502", "body", "end"] == play.client.said
    assert b"stale_connection" == play.client.reason
    assert BreakerState.CLOSED is stage.breaker_state("a")
    stage.assert_all_is_settled()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_the_last_retriable_status_is_passed_on_as_it_is_and_counts(status: int) -> None:
    stage = Stage("a", ONE_STRIKE)
    play, connection = stage.sending()

    connection.answer(status, b"sorry")

    assert [f"head {status}", "body", "end"] == play.client.said
    assert b"sorry" == bytes(play.client.body)
    assert (None, status) == (play.exchange.failure, play.exchange.status)
    assert "reusable" == connection.ending
    assert BreakerState.OPEN is stage.breaker_state("a")
    stage.assert_all_is_settled()


def test_other_errors_of_an_instance_are_its_own_affair() -> None:
    stage = Stage("ab", ONE_STRIKE)
    play, connection = stage.sending()

    connection.answer(500)

    assert ["head 500", "body", "end"] == play.client.said
    assert BreakerState.CLOSED is stage.breaker_state("a")


def test_an_answer_that_breaks_off_cuts_the_client_off_and_counts() -> None:
    stage = Stage("abc", ONE_STRIKE)
    play, connection = stage.relaying()
    connection.body(b"half")

    connection.fail(Failure.UPSTREAM_BROKE_OFF)

    assert ["head 200", "body", "abort"] == play.client.said
    assert Failure.UPSTREAM_BROKE_OFF is play.exchange.failure
    assert BreakerState.OPEN is stage.breaker_state("a")
    assert [] == stage.pools["b"].made
    stage.assert_all_is_settled()


@pytest.mark.parametrize("failure", [Failure.BAD_RESPONSE, Failure.DISCONNECTED_EARLY])
def test_whatever_goes_wrong_behind_the_head_is_a_break_off(failure: Failure) -> None:
    stage = Stage()
    play, connection = stage.relaying()

    connection.fail(failure)

    assert ["head 200", "abort"] == play.client.said
    assert Failure.UPSTREAM_BROKE_OFF is play.exchange.failure
    assert [Failure.UPSTREAM_BROKE_OFF] == [one.failure for one in play.exchange.attempts.failed]


def test_attempts_of_one_means_no_failover() -> None:
    stage = Stage("abc", Policies(retry=RetryPolicy(attempts=1)))
    play = stage.begin()

    stage.pools["a"].refuse()

    assert b"connect_failed" == play.client.reason
    assert [] == stage.pools["b"].asked_fresh
