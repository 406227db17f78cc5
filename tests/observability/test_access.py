"""What the line of a request says, and when lines are written."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import Breaker
from gateway.core.failure import Failure
from gateway.core.fleet import Member
from gateway.core.message import Peer, Request, lines_of
from gateway.core.model import Instance
from gateway.core.policy import BreakerPolicy
from gateway.observability.access import AccessLog, line_of, open_access_log
from gateway.observability.output import Output, to_stream
from tests.fakes.settled import FakeAttempts, FakeExchange, FakeFailedAttempt, FakeUpload
from tests.fakes.waiting import wait_until

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = "2026-01-02T03:04:05.000000Z"


class Timers:
    """Stands for a loop's call_later: keeps what it is to call."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.waiting.append((delay_s, call))

    def fire(self) -> None:
        for _, call in self.waiting[:]:
            self.waiting.pop(0)
            call()


def request(path: bytes = b"/api/users/42", **fields: bytes) -> Request:
    listed = [(name.encode(), value) for name, value in fields.items()]
    made = Request(b"GET", path, b"?token=secret", lines_of(listed), b"api.example.com")
    made.peer = Peer(b"192.0.2.7", b"http", is_trusted=False)
    made.request_id = b"0123abc"
    made.started_at_s = 100.0
    return made


def member(name: str = "user-1") -> Member[Any]:
    instance = Instance(key=name, id=name, host="127.0.0.1", port=80)
    return Member(instance, Breaker(BreakerPolicy()), None)


def fields_of(exchange: FakeExchange, now_s: float = 100.25) -> dict[str, Any]:
    line = line_of(exchange, now_s, timestamp=NOW)
    assert line.endswith("}\n")
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_the_line_of_a_request_that_went_well() -> None:
    exchange = FakeExchange(
        request(),
        is_routed=True,
        answered_at_s=100.125,
        sent_bytes=17,
        upload=FakeUpload(5),
        attempts=FakeAttempts().trying(member()),
    )

    assert fields_of(exchange) == {
        "timestamp": NOW,
        "level": "info",
        "event": "request",
        "method": "GET",
        "path": "/api/users/42",
        "host": "api.example.com",
        "status": 200,
        "duration_ms": 250.0,
        "bytes_in": 5,
        "bytes_out": 17,
        "client": "192.0.2.7",
        "request_id": "0123abc",
        "route": "users",
        "service": "user",
        "instance": "user-1",
        "attempts": 1,
        "upstream_ms": 125.0,
    }


def test_a_body_that_came_with_its_head_counts() -> None:
    sent = request()
    sent.body = b"four"

    assert fields_of(FakeExchange(sent))["bytes_in"] == 4


def test_the_query_and_header_values_are_not_told() -> None:
    exchange = FakeExchange(request(authorization=b"Bearer secret", cookie=b"secret"))

    assert "secret" not in line_of(exchange, 101.0, timestamp=NOW)


def test_a_refusal_tells_its_failure_and_no_instance() -> None:
    exchange = FakeExchange(
        request(), failure=Failure.NO_ROUTE, detail='no route takes "/"', status=404
    )

    fields = fields_of(exchange)

    assert (fields["status"], fields["failure"], fields["level"]) == (404, "no_route", "info")
    assert fields["detail"] == 'no route takes "/"'
    assert not fields.keys() & {"route", "service", "instance", "attempts", "upstream_ms"}


def test_a_routed_request_that_was_tried_with_nobody_counts_no_attempt() -> None:
    exchange = FakeExchange(
        request(), is_routed=True, failure=Failure.NO_INSTANCES, detail="", status=503
    )

    fields = fields_of(exchange)

    assert (fields["route"], fields["attempts"], fields["level"]) == ("users", 0, "error")
    assert "instance" not in fields


def test_failed_attempts_are_listed_beside_the_one_that_answered() -> None:
    failed = [FakeFailedAttempt(member("user-1"), Failure.CONNECT_FAILED)]
    exchange = FakeExchange(
        request(), is_routed=True, attempts=FakeAttempts(failed).trying(member("user-2"))
    )

    fields = fields_of(exchange)

    assert (fields["instance"], fields["attempts"]) == ("user-2", 2)
    assert fields["failed_attempts"] == [{"instance": "user-1", "failure": "connect_failed"}]
    assert fields["level"] == "warning"


def test_a_last_attempt_that_failed_is_counted_once() -> None:
    last = member("user-2")
    failed = [
        FakeFailedAttempt(member("user-1"), Failure.CONNECT_FAILED),
        FakeFailedAttempt(last, Failure.HEAD_TIMEOUT),
    ]
    exchange = FakeExchange(
        request(),
        is_routed=True,
        failure=Failure.HEAD_TIMEOUT,
        status=504,
        attempts=FakeAttempts(failed).trying(last),
    )

    fields = fields_of(exchange)

    assert (fields["attempts"], len(fields["failed_attempts"])) == (2, 2)


def test_a_client_that_left_gets_499_whatever_it_was_told_before() -> None:
    exchange = FakeExchange(request(), failure=Failure.CLIENT_GONE, status=200)

    fields = fields_of(exchange)

    assert (fields["status"], fields["level"]) == (499, "info")


@pytest.mark.parametrize(
    ("failure", "status", "level"),
    [
        (None, 200, "info"),
        (None, 404, "info"),
        (None, 500, "warning"),
        (Failure.BAD_REQUEST, 400, "info"),
        (Failure.CONNECT_FAILED, 502, "warning"),
        (Failure.UPSTREAM_BROKE_OFF, 200, "warning"),
        (Failure.CATALOG_COLD, 503, "error"),
        (Failure.INTERNAL_ERROR, 500, "error"),
    ],
)
def test_the_level_says_whose_fault_it_was(
    failure: Failure | None, status: int, level: str
) -> None:
    assert level == fields_of(FakeExchange(request(), failure=failure, status=status))["level"]


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_the_trace_of_a_request_is_told(name: str) -> None:
    fields = fields_of(FakeExchange(request(**{name: TRACE})))

    assert fields["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("value", [b"", b"00-secret-1-01", TRACE.upper()])
def test_a_traceparent_that_is_none_is_not_told(value: bytes) -> None:
    assert "trace_id" not in fields_of(FakeExchange(request(traceparent=value)))


@given(
    path=st.binary(), host=st.binary(), detail=st.text(), method=st.binary(), address=st.binary()
)
def test_any_bytes_give_one_line_of_ascii_that_parses(
    path: bytes, host: bytes, detail: str, method: bytes, address: bytes
) -> None:
    made = Request(method, path, b"", b"", host)
    made.peer = Peer(address, b"http", is_trusted=False)
    exchange = FakeExchange(made, failure=Failure.BAD_REQUEST, detail=detail)

    line = line_of(exchange, 0.0, timestamp=NOW)

    assert line.isascii()
    assert line.index("\n") == len(line) - 1
    fields = json.loads(line)
    assert path.decode("latin-1") == fields["path"]
    assert detail == fields["detail"]


class Scene:
    """An access log over memory, with a wall clock and timers that the test moves."""

    def __init__(self, **options: Any) -> None:
        self.raw = io.BytesIO()
        self.timers = Timers()
        self.wall_s = 1_767_323_045.5
        self.output: Output = to_stream(io.TextIOWrapper(self.raw), name="test")
        self.log = AccessLog(
            self.output,
            render=options.get("render"),
            wall_clock=lambda: self.wall_s,
            call_later=self.timers.call_later,
        )

    def settle(self, count: int = 1) -> None:
        for _ in range(count):
            self.log.settled(FakeExchange(request()), 101.0)

    def lines(self) -> list[str]:
        assert self.output.flush()
        return self.raw.getvalue().decode().splitlines()


def test_lines_leave_together_when_the_one_timer_fires() -> None:
    scene = Scene()

    scene.settle(3)

    assert [delay_s for delay_s, _ in scene.timers.waiting] == [0.1]
    assert scene.lines() == []
    scene.timers.fire()
    assert len(scene.lines()) == 3
    assert scene.timers.waiting == []
    scene.settle()
    assert len(scene.timers.waiting) == 1
    scene.log.close()


def test_a_full_batch_leaves_at_once_and_needs_no_second_timer() -> None:
    scene = Scene()

    scene.settle(1500)

    assert len(scene.lines()) == 1000
    assert len(scene.timers.waiting) == 1
    scene.log.close()
    assert len(scene.raw.getvalue().splitlines()) == 1500


def test_a_timer_that_fires_after_closing_does_nothing() -> None:
    scene = Scene()
    scene.settle()
    scene.log.close()

    scene.timers.fire()

    assert len(scene.raw.getvalue().splitlines()) == 1
    assert scene.output.dropped_count == 0


def test_lines_carry_the_wall_clock_time_at_which_they_were_made() -> None:
    scene = Scene()

    scene.settle()
    scene.wall_s += 0.25
    scene.settle()
    scene.wall_s += 60
    scene.settle()

    scene.log.close()
    times = [json.loads(line)["timestamp"] for line in scene.raw.getvalue().splitlines()]
    assert times == [
        "2026-01-02T03:04:05.500000Z",
        "2026-01-02T03:04:05.750000Z",
        "2026-01-02T03:05:05.750000Z",
    ]


def test_a_renderer_makes_text_of_the_same_fields() -> None:
    scene = Scene(render=lambda _logger, _method, event: f"{event['method']} {event['path']}")

    scene.settle()
    scene.log.close()

    assert scene.raw.getvalue() == b"GET /api/users/42\n"


async def test_the_timer_is_one_of_the_running_loop(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = open_access_log(path, "auto", wall_clock=lambda: 0.0)
    assert log is not None

    log.settled(FakeExchange(request()), 101.0)

    await wait_until(path.read_bytes)
    assert json.loads(path.read_bytes())["event"] == "request"
    log.close()


def test_off_is_no_access_log() -> None:
    assert open_access_log("off", "auto", wall_clock=lambda: 0.0) is None


@pytest.mark.parametrize(
    ("log_format", "begins"), [("auto", '{"timestamp":'), ("json", '{"'), ("text", "1970-01-01T")]
)
def test_on_is_standard_output_in_the_format_of_the_log(
    monkeypatch: pytest.MonkeyPatch, log_format: str, begins: str
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw))
    log = open_access_log("on", log_format, wall_clock=lambda: 0.0)
    assert log is not None
    log._call_later = Timers().call_later

    log.settled(FakeExchange(request()), 101.0)
    log.close()

    assert raw.getvalue().decode().startswith(begins)


def test_a_file_is_text_only_where_text_was_asked_for(tmp_path: Path) -> None:
    for log_format, begins in (("auto", "{"), ("text", "1970")):
        path = tmp_path / log_format
        log = open_access_log(path, log_format, wall_clock=lambda: 0.0)
        assert log is not None
        log._call_later = Timers().call_later

        log.settled(FakeExchange(request()), 101.0)
        log.close()

        assert path.read_text(encoding="utf-8").startswith(begins)


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such folder"):
        open_access_log(tmp_path / "no such folder" / "x", "auto", wall_clock=lambda: 0.0)


def test_the_repr_tells_what_waits() -> None:
    scene = Scene()
    scene.settle(2)

    assert repr(scene.log) == "<AccessLog 2 waiting, <Output test, 0 dropped, well>>"
    scene.log.close()
