"""Lines get where they belong, and whatever happens there costs lines at most."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.observability import output as output_module
from gateway.observability.output import Output, to_file, to_stream
from tests.fakes.waiting import PATIENCE_S


class ScriptedSink:
    """Plays one answer for each write: how many bytes it takes, None, or an error.

    After the script it takes everything. `is_open` cleared, a write waits until it is set again.
    """

    def __init__(self, *script: int | OSError | None) -> None:
        self.script = list(script)
        self.written = b""
        self.is_open = threading.Event()
        self.is_open.set()
        self.is_waiting = threading.Event()
        self.is_closed = False

    def write(self, chunk: memoryview, /) -> int | None:
        if not self.is_open.is_set():
            self.is_waiting.set()
            assert self.is_open.wait(PATIENCE_S)
        answer = self.script.pop(0) if self.script else len(chunk)
        if isinstance(answer, OSError):
            raise answer
        if answer is not None:
            self.written += bytes(chunk[:answer])
        return answer

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def outputs() -> Iterator[list[Output]]:
    opened: list[Output] = []
    yield opened
    for one in opened:
        one.close()


def test_lines_are_written_in_the_order_in_which_they_were_put(outputs: list[Output]) -> None:
    sink = ScriptedSink()
    output = Output(sink, name="test")
    outputs.append(output)

    for number in range(100):
        output.put(f"{number}\n")

    assert output.flush()
    assert [str(number).encode() for number in range(100)] == sink.written.splitlines()


def test_what_a_sink_takes_in_parts_arrives_whole(outputs: list[Output]) -> None:
    sink = ScriptedSink(1, 3)
    output = Output(sink, name="test")
    outputs.append(output)

    output.put("a line in parts\n")

    assert output.flush()
    assert sink.written == b"a line in parts\n"
    assert output.dropped_count == 0


def test_a_full_disk_costs_lines_and_is_told_once_on_each_transition(
    outputs: list[Output],
) -> None:
    full = OSError(28, "No space left on device")
    sink = ScriptedSink(full, full)
    output = Output(sink, name="test")
    outputs.append(output)

    with capture_logs() as events:
        for line in ("one\n", "two\ntwo\n", "three\n", "four\n"):
            output.put(line)
            assert output.flush()

    lost, found = events
    assert (lost["event"], lost["output"]) == ("log_output_lost", "test")
    assert "No space left" in lost["reason"]
    assert (found["event"], found["dropped"]) == ("log_output_found", 3)
    assert [b"three", b"four"] == sink.written.split()


def test_after_a_torn_line_the_next_one_begins_anew(outputs: list[Output]) -> None:
    sink = ScriptedSink(3, OSError(28, "No space left on device"))
    output = Output(sink, name="test")
    outputs.append(output)

    output.put('{"event":"torn"}\n')
    assert output.flush()
    output.put('{"event":"whole"}\n')
    assert output.flush()

    assert b'{"e\n{"event":"whole"}\n' == sink.written


def test_a_sink_that_would_block_costs_the_line(outputs: list[Output]) -> None:
    sink = ScriptedSink(None)
    output = Output(sink, name="test")
    outputs.append(output)

    output.put("one\n")

    assert output.flush()
    assert output.dropped_count == 1
    assert "it takes no more" in repr(output)


def test_a_reader_that_has_stopped_keeps_nobody_waiting(
    outputs: list[Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stalled log collector must not stall the gateway, nor fill its memory."""
    monkeypatch.setattr(output_module, "_MOST_PENDING_CHARS", 10)
    sink = ScriptedSink()
    sink.is_open.clear()
    output = Output(sink, name="test")
    outputs.append(output)
    output.put("stuck\n")
    assert sink.is_waiting.wait(PATIENCE_S)

    with capture_logs() as events:
        for _ in range(4):
            output.put("12345\n")

    assert not output.flush(within_s=0.01)
    assert output.dropped_count == 2
    assert [event["event"] for event in events] == ["log_output_lost"]
    sink.is_open.set()
    assert output.flush()
    assert sink.written == b"stuck\n12345\n12345\n"


def test_closing_writes_what_is_left_and_closes_the_sink() -> None:
    sink = ScriptedSink()
    output = Output(sink, name="test")
    output.put("last\n")

    output.close()

    assert (sink.written, sink.is_closed) == (b"last\n", True)
    output.put("too late\n")
    assert (sink.written, output.dropped_count) == (b"last\n", 1)


def test_closing_does_not_wait_for_a_sink_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ScriptedSink()
    sink.is_open.clear()
    output = Output(sink, name="test")
    output.put("stuck\n")
    monkeypatch.setattr(output, "flush", lambda: False)

    output.close()

    assert not sink.is_closed
    sink.is_open.set()


def test_a_pipe_whose_reader_has_gone_raises_nothing(outputs: list[Output]) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        output = to_stream(stream, name="test")
        outputs.append(output)
        os.close(reader)

        output.put("nobody reads this\n")

        assert output.flush()
        assert output.dropped_count == 1


def test_a_stream_that_was_closed_by_its_owner_raises_nothing(outputs: list[Output]) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    output = to_stream(stream, name="test")
    outputs.append(output)
    stream.close()

    output.put("too late\n")

    assert output.flush()
    assert output.dropped_count == 1


def test_a_stream_is_left_open_for_its_owner() -> None:
    raw = io.BytesIO()
    output = to_stream(io.TextIOWrapper(raw), name="test")
    output.put("é\udc80\n")

    output.close()

    assert "é\\udc80\n".encode() == raw.getvalue()


def test_a_file_is_appended_to_and_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.touch(mode=0o640)
    path.write_text("before\n", encoding="utf-8")
    output = to_file(path)

    output.put("after\n")
    output.close()

    assert path.read_text(encoding="utf-8") == "before\nafter\n"


def test_a_new_file_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "access.log"

    to_file(path).close()

    assert path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("is_moved", [True, False], ids=["moved", "removed"])
def test_a_file_that_was_rotated_is_opened_anew(
    tmp_path: Path, outputs: list[Output], *, is_moved: bool
) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    output = to_file(path)
    outputs.append(output)
    output.put("before\n")
    assert output.flush()

    if is_moved:
        path.rename(old)
    else:
        path.unlink()
    output.put("after\n")

    assert output.flush()
    assert path.read_text(encoding="utf-8") == "after\n"


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        to_file(tmp_path / "no such folder" / "access.log")


def test_a_named_pipe_that_nobody_reads_is_an_error_and_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(OSError, match="nobody reads"):
        to_file(path)


def test_a_named_pipe_that_is_read_gets_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = to_file(path)
    output.put("line\n")

    assert output.flush()
    assert os.read(reader, 100) == b"line\n"
    output.close()
    os.close(reader)
