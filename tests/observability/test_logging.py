"""Our events and those of libraries look alike, and tell nothing that is secret."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from gateway.observability.logging import configure_logging, is_readable, text_renderer

Log = Callable[[], list[str]]


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("gateway")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.fixture
def configured() -> Callable[..., Log]:
    """Configure logging to a stream; the result reads its lines."""

    def configure(level: str = "info", log_format: str = "json") -> Log:
        raw = io.BytesIO()
        output = configure_logging(level, log_format, io.TextIOWrapper(raw))

        def lines() -> list[str]:
            assert output.flush()
            return raw.getvalue().decode().splitlines()

        return lines

    return configure


def only(lines: list[str]) -> dict[str, Any]:
    (line,) = lines
    event: dict[str, Any] = json.loads(line)
    return event


def test_an_event_is_one_json_object_with_time_level_and_name_first(
    configured: Callable[..., Log],
) -> None:
    lines = configured()

    structlog.get_logger().info("route_added", route="users", count=2)

    event = only(lines())
    assert ["timestamp", "level", "event", "route", "count"] == list(event)
    assert ("info", "route_added", "users", 2) == tuple(event.values())[1:]


def test_times_are_iso_8601_in_utc(configured: Callable[..., Log]) -> None:
    lines = configured()

    structlog.get_logger().info("route_added")

    told = datetime.fromisoformat(only(lines())["timestamp"])
    assert abs(datetime.now(UTC) - told).total_seconds() < 10


def test_libraries_go_through_the_same_renderer(configured: Callable[..., Log]) -> None:
    lines = configured()

    logging.getLogger("uvicorn.error").warning("Exceeded %s", "a limit")

    event = only(lines())
    assert ("warning", "Exceeded a limit") == (event["level"], event["event"])
    assert event["logger"] == "uvicorn.error"


def test_libraries_are_not_heard_below_warning(configured: Callable[..., Log]) -> None:
    lines = configured()

    logging.getLogger("httpx").info("HTTP Request: GET /v1/health?token=secret")

    assert lines() == []


def test_libraries_never_tell_their_debug_lines(configured: Callable[..., Log]) -> None:
    """The debug lines of httpcore hold the values of header fields."""
    lines = configured("debug")

    logging.getLogger("httpcore.http11").debug("receive_response_headers: secret")
    logging.getLogger("httpx").info("HTTP Request")

    assert only(lines())["event"] == "HTTP Request"


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_the_least_that_is_told(
    configured: Callable[..., Log], level: str, told: list[str]
) -> None:
    lines = configured(level)
    log = structlog.get_logger()

    for one in ("debug", "info", "warning", "error"):
        getattr(log, one)("something_happened")

    assert told == [json.loads(line)["level"] for line in lines()]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_is_told_without_local_variables(
    configured: Callable[..., Log], log_format: str
) -> None:
    lines = configured(log_format=log_format)

    secret = "eyJhbGciOi"

    def fail(token: str) -> None:
        raise ValueError("something broke")

    try:
        fail(secret)
    except ValueError:
        structlog.get_logger().exception("task_failed")

    text = "\n".join(lines())
    assert "task_failed" in text
    assert "ValueError: something broke" in text
    assert secret not in text


def test_configuring_again_takes_the_place_of_what_was(configured: Callable[..., Log]) -> None:
    before, after = configured(), configured()

    structlog.get_logger().info("route_added")

    assert only(after())["event"] == "route_added"
    assert before() == []


def test_a_record_that_cannot_be_formatted_is_shown_and_raises_nothing(
    configured: Callable[..., Log], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = configured()
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "a number: %d", ("none",), None)

    logging.getLogger().handlers[-1].emit(record)

    assert lines() == []
    assert "a real number is required" in capsys.readouterr().err


def test_what_was_told_is_written_when_the_process_ends() -> None:
    script = (
        "import sys, structlog\n"
        "from gateway.observability.logging import configure_logging\n"
        "configure_logging('info', 'json', sys.stdout)\n"
        "structlog.get_logger().info('last_words')\n"
    )

    told = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert b'"event":"last_words"' in told.stdout


@pytest.mark.parametrize(
    ("log_format", "stream", "expected"),
    [
        ("auto", Terminal(io.BytesIO()), True),
        ("auto", io.TextIOWrapper(io.BytesIO()), False),
        ("text", io.TextIOWrapper(io.BytesIO()), True),
        ("json", Terminal(io.BytesIO()), False),
    ],
    ids=["auto on a terminal", "auto elsewhere", "text elsewhere", "json on a terminal"],
)
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    log_format: str, stream: io.TextIOWrapper, *, expected: bool
) -> None:
    assert expected == is_readable(log_format, stream)


def test_text_has_the_event_and_its_fields_on_one_line(configured: Callable[..., Log]) -> None:
    lines = configured(log_format="text")

    structlog.get_logger().info("route_added", route="users", count=2)

    (line,) = lines()
    assert line.split()[1:] == ["[info", "]", "route_added", "route=users", "count=2"]


def test_text_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(io.BytesIO())

    coloured = text_renderer(terminal)(None, "info", {"event": "x"})
    plain = text_renderer(None)(None, "info", {"event": "x"})
    monkeypatch.setenv("NO_COLOR", "1")
    refused = text_renderer(terminal)(None, "info", {"event": "x"})

    assert "\x1b" in coloured
    assert "\x1b" not in plain + refused


def test_nothing_that_a_peer_says_can_steer_the_terminal() -> None:
    render = text_renderer(None)

    line = render(None, "info", {"event": "request", "path": "/\x1b]0;x\x07\x9b2J\n"})

    assert line.isprintable()
    assert r"/\x1b]0;x\x07\x9b2J\n" in line
