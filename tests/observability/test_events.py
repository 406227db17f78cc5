"""Transitions are told once each, and requests reach the access log."""

from __future__ import annotations

import io
import json
from random import Random

from structlog.testing import capture_logs

from gateway.core.breaker import Breaker
from gateway.core.fleet import Member
from gateway.core.message import AnswerHead, Fields, Request
from gateway.core.model import Instance
from gateway.core.policy import BreakerPolicy
from gateway.observability.access import AccessLog
from gateway.observability.events import EventLog
from gateway.observability.output import to_stream
from gateway.proxy.deadlines import Deadlines
from gateway.proxy.engine import Engine
from gateway.proxy.exchange import Exchange
from gateway.proxy.sides import ConnectionPool, Observer

NOW_S = 1000.0


class NoPool:
    """The connections of an instance that nothing is sent to."""

    def acquire(self, exchange: object, now_s: float) -> None:
        raise AssertionError

    def open_for(self, exchange: object) -> None:
        raise AssertionError

    def abandon(self, exchange: object) -> None:
        raise AssertionError

    def retire(self) -> None:
        pass


class NoClient:
    """A client that takes everything and says nothing."""

    def send_interim(self, status: int, fields: Fields) -> None: ...
    def send_head(self, head: AnswerHead) -> None: ...
    def send_body(self, chunk: bytes) -> None: ...
    def send_end(self, trailers: Fields) -> None: ...
    def send_answer(self, head: AnswerHead, body: bytes) -> None: ...
    def abort(self) -> None: ...
    def flush(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def unsent_bytes(self) -> int | None: ...

    def hand_over(self, exchange: Exchange) -> None: ...
    def shutdown(self) -> None: ...


def member() -> Member[ConnectionPool]:
    instance = Instance(key="a", id="user-1", host="::1", port=8000)
    policy = BreakerPolicy(consecutive_failures=1, open_for_s=10.0)
    return Member(instance, Breaker(policy), NoPool())


def fail(one: Member[ConnectionPool], now_s: float) -> None:
    permit = one.breaker.admit(now_s)
    assert permit is not None
    assert one.breaker.failed(permit, now_s, why="connect_failed", chance=0.5)


def test_a_breaker_that_opened_tells_why_and_for_how_long() -> None:
    one = member()
    fail(one, NOW_S)

    with capture_logs() as events:
        EventLog(None).breaker_changed("user-service", one, NOW_S)

    assert events == [
        {
            "event": "breaker_opened",
            "log_level": "warning",
            "service": "user-service",
            "instance": "user-1",
            "address": "[::1]:8000",
            "why": "connect_failed",
            "open_for_s": 9.5,
        }
    ]


def test_a_breaker_that_closed_is_told_too() -> None:
    one = member()
    fail(one, NOW_S)
    later_s = NOW_S + 60
    trial = one.breaker.admit(later_s)
    assert trial is not None
    assert one.breaker.succeeded(trial, later_s)

    with capture_logs() as events:
        EventLog(None).breaker_changed("user-service", one, later_s)

    (event,) = events
    assert (event["event"], event["log_level"]) == ("breaker_closed", "info")
    assert event["instance"] == "user-1"


def engine(observer: Observer) -> Engine:
    """Make one without routes; that it takes an EventLog is half of what is tested here."""
    return Engine(
        lambda _service, _instance: NoPool(),
        random=Random(1).random,
        wall_clock=lambda: 0.0,
        observer=observer,
        deadlines=Deadlines(),
    )


def test_a_real_exchange_that_is_over_leaves_its_line() -> None:
    raw = io.BytesIO()
    access_log = AccessLog(
        to_stream(io.TextIOWrapper(raw), name="test"),
        render=None,
        wall_clock=lambda: 0.0,
        call_later=lambda _delay_s, _call: None,
    )
    events = EventLog(access_log)
    request = Request(b"GET", b"/nowhere", b"", b"", b"localhost")

    engine(events).exchange(request, NoClient()).begin(NOW_S)
    events.close()

    (line,) = raw.getvalue().splitlines()
    fields = json.loads(line)
    assert (fields["path"], fields["status"], fields["failure"]) == ("/nowhere", 404, "no_route")


def test_without_an_access_log_a_request_leaves_nothing() -> None:
    events = EventLog(None)
    request = Request(b"GET", b"/nowhere", b"", b"", b"localhost")

    with capture_logs() as told:
        engine(events).exchange(request, NoClient()).begin(NOW_S)
        events.close()

    assert told == []
