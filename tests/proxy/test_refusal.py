"""Answers of our own: each failure has one that programs can read."""

from __future__ import annotations

import json

import pytest

from gateway.core.failure import VERDICTS, Failure
from gateway.core.policy import BreakerPolicy
from gateway.core.routing import NO_ROUTE, NoMatch
from gateway.proxy.refusal import come_again, reason_phrase, refuse, status_of, unmatched
from tests.fakes.engine import Policies, Stage

BUSY = [failure for failure in Failure if VERDICTS[failure].status == 503]


@pytest.mark.parametrize("failure", Failure, ids=lambda one: one.value)
def test_each_failure_has_an_answer_that_names_it(failure: Failure) -> None:
    request = Stage().request()
    extra = [(b"Allow", b"GET")]

    head, body = refuse(failure, "because", request, extra=extra)

    assert {
        "type": f"urn:gateway:failure:{failure.value}",
        "title": VERDICTS[failure].title,
        "status": head.status,
        "detail": "because",
        "reason": failure.value,
        "request_id": "id-1",
    } == json.loads(body)
    assert [
        (b"Content-Type", b"application/problem+json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Gateway-Reason", failure.value.encode()),
        (b"Allow", b"GET"),
    ] == head.fields
    assert (len(body), True) == (head.length, head.has_body)
    assert status_of(failure) == head.status


def test_the_answer_to_head_tells_the_length_and_has_no_body() -> None:
    request = Stage().request(b"HEAD")

    head, body = refuse(Failure.NO_ROUTE, "because", request, extra=[])

    assert b"" == body
    assert not head.has_body
    assert head.length is not None
    assert head.length > 0


def test_whatever_stands_in_a_detail_is_written_as_json() -> None:
    detail = '\r\nSet-Cookie: a="b"\x00\u00e9\ud800'

    _, body = refuse(Failure.BAD_REQUEST, detail, Stage().request(), extra=[])

    assert detail == json.loads(body)["detail"]
    assert b"\r" not in body
    assert body.isascii()


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Failure.CLIENT_GONE, 499),
        (Failure.UPSTREAM_BROKE_OFF, 502),
        (Failure.RETRIABLE_STATUS, 502),
        (Failure.NO_ROUTE, 404),
        (Failure.INTERNAL_ERROR, 500),
    ],
)
def test_what_has_no_answer_of_ours_is_logged_with_a_status(failure: Failure, status: int) -> None:
    assert status == status_of(failure)


@pytest.mark.parametrize(
    ("status", "phrase"), [(200, b"OK"), (404, b"Not Found"), (499, b""), (999, b"")]
)
def test_reason_phrases(status: int, phrase: bytes) -> None:
    assert phrase == reason_phrase(status)


def test_no_route_names_the_path() -> None:
    assert (Failure.NO_ROUTE, "no route takes /\xe9", []) == unmatched(NO_ROUTE, b"/\xe9")


def test_a_method_that_is_not_taken_names_those_that_are() -> None:
    no_match = NoMatch(frozenset({b"PUT", b"GET"}))

    failure, detail, fields = unmatched(no_match, b"/api")

    assert Failure.METHOD_NOT_ALLOWED is failure
    assert "/api takes GET, PUT" == detail
    assert [(b"Allow", b"GET, PUT")] == fields


@pytest.mark.parametrize("failure", BUSY, ids=lambda one: one.value)
def test_whoever_is_busy_says_when_to_come_again(failure: Failure) -> None:
    assert [(b"Retry-After", b"1")] == come_again(failure, None, 0.0)
    assert [(b"Retry-After", b"1")] == come_again(failure, Stage("").fleet, 0.0)
    assert [(b"Retry-After", b"1")] == come_again(failure, Stage("ab").fleet, 0.0)


def test_open_breakers_say_when_the_next_trial_is_due() -> None:
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0)))
    stage.open_breaker("a")

    fields = [come_again(Failure.BREAKERS_OPEN, stage.fleet, stage.clock() + s) for s in (0, 0.5)]

    assert [[(b"Retry-After", b"1")]] * 2 == fields


@pytest.mark.parametrize("now_s", [31.2, 127.3, 511.2])
def test_a_trial_that_is_due_in_a_second_is_due_in_one_second(now_s: float) -> None:
    """`(now + 1) - now` is a hair more than one for these, so Retry-After was 2."""
    stage = Stage("a", Policies(breaker=BreakerPolicy(consecutive_failures=1, open_for_s=10.0)))
    stage.clock.now_s = now_s
    stage.open_breaker("a")

    assert [(b"Retry-After", b"1")] == come_again(Failure.BREAKERS_OPEN, stage.fleet, now_s)


def test_no_other_failure_asks_to_come_again() -> None:
    others = [failure for failure in Failure if failure not in BUSY]

    assert [[]] * len(others) == [come_again(one, Stage().fleet, 0.0) for one in others]
