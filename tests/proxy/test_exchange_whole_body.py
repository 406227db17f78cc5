"""Requests whose body came with their head: it goes with the head, and is sent again with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.failure import Failure
from gateway.core.policy import Hedge, RetryPolicy
from tests.fakes.engine import Play, Policies, Stage
from tests.fakes.sides import FakeClient

BODY = b"four"


def begin(stage: Stage, method: bytes = b"PUT") -> Play:
    """Let a client send a head, and its body with it."""
    request, client = stage.request(method, len(BODY)), FakeClient()
    request.body = BODY
    exchange = stage.engine.exchange(request, client)
    exchange.begin(stage.clock())
    return Play(exchange=exchange, client=client)


def test_the_body_leaves_with_the_head_and_nothing_more_is_read() -> None:
    stage = Stage("a")
    play = begin(stage)
    connection = stage.pools["a"].connect()

    assert connection.sent.startswith(b"PUT /api/x?q=1 HTTP/1.1\r\n")
    assert connection.sent.endswith(b"\r\n\r\nfour")
    assert connection.sent.count(b"four") == 1
    connection.answer()
    assert ["head 200", "body", "end"] == play.client.said
    assert "reusable" == connection.ending
    stage.assert_all_is_settled()


def test_the_next_instance_gets_all_of_it() -> None:
    stage = Stage("ab")
    play = begin(stage)
    first = stage.pools["a"].connect()
    first.fail()
    second = stage.pools["b"].connect()

    assert bytes(first.sent) == bytes(second.sent)
    second.answer()
    assert ["head 200", "body", "end"] == play.client.said


def test_a_post_is_not_sent_again() -> None:
    stage = Stage("ab")
    play = begin(stage, b"POST")

    stage.pools["a"].connect().fail()

    assert [] == stage.pools["b"].waiting
    assert "head 502" == play.client.said[0]


def test_one_over_the_buffer_streams_and_cannot_be_sent_again() -> None:
    stage = Stage("ab", Policies(retry=RetryPolicy(buffer_bytes=3)))
    play = begin(stage)
    connection = stage.pools["a"].connect()

    assert connection.sent.endswith(b"\r\n\r\nfour")
    assert connection.sent.count(b"four") == 1
    connection.fail()
    assert [] == stage.pools["b"].waiting
    assert "head 502" == play.client.said[0]


def test_one_that_the_route_does_not_take_is_refused() -> None:
    stage = Stage("a")
    stage.route(replace(stage.api(), max_body_bytes=3))
    play = begin(stage)

    assert Failure.BODY_TOO_LARGE is play.exchange.failure
    assert [] == stage.pools["a"].waiting


@pytest.mark.parametrize("method", [b"PUT", b"DELETE"])
def test_it_is_not_hedged(method: bytes) -> None:
    """Hedging is for requests without a body, whichever way it came."""
    stage = Stage("ab", Policies(retry=RetryPolicy(hedge=Hedge(after_s=0.05))))
    play = begin(stage, method)
    connection = stage.pools["a"].connect()

    stage.pass_time(0.2)

    assert None is play.exchange.hedge
    assert [] == stage.pools["b"].waiting
    connection.answer()


def test_a_long_answer_does_not_keep_it() -> None:
    stage = Stage("a")
    play = begin(stage)
    connection = stage.pools["a"].connect()
    connection.head()

    assert b"" == play.exchange.request.body
    assert b"four" not in play.exchange._lines
    assert play.exchange.upload is not None
    assert 4 == play.exchange.upload.received_bytes
    connection.body(b"more")
    connection.end()
    stage.assert_all_is_settled()
