"""Where lines go: a stream or a file, written by a thread of its own.

The one rule: logging neither blocks nor ends the gateway. A reader that has stopped, a full disk or
a closed pipe costs lines, which are counted, and nothing else. It is told once when lines begin to
be lost and once when they are written again.
"""

from __future__ import annotations

import errno
import os
import threading
from io import FileIO
from pathlib import Path
from typing import Protocol, TextIO

import structlog

_log = structlog.get_logger()

_MOST_PENDING_CHARS = 8 * 1024 * 1024
_FLUSH_WITHIN_S = 2.0
_OWNER_AND_GROUP = 0o640


class Sink(Protocol):
    """Something that takes bytes and may block, or raise OSError or ValueError."""

    def write(self, chunk: memoryview, /) -> int | None:
        """Write some of the bytes; tell how many, None when it would have had to wait."""
        ...

    def close(self) -> None:
        """Let go of what is written to."""
        ...


class Output:
    """Takes lines at once and writes them in a thread, in order.

    `name` is what it is called in events. The thread lives from the first line to `close`, and does
    not keep the process from ending.
    """

    def __init__(self, sink: Sink, *, name: str) -> None:
        self.name = name
        self.dropped_count = 0
        self._sink = sink
        self._pending: list[str] = []
        self._pending_chars = 0
        self._is_writing = False
        self._is_closed = False
        self._is_torn = False
        self._why_losing: str | None = None
        self._is_told = True
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        state = "well" if self._why_losing is None else f"losing lines: {self._why_losing}"
        return f"<Output {self.name}, {self.dropped_count} dropped, {state}>"

    def put(self, lines: str) -> None:
        """Take lines, each with its newline; drop them where too much waits already."""
        with self._changed:
            if self._is_closed:
                self._lose(lines, "it is closed")
            elif self._pending_chars >= _MOST_PENDING_CHARS:
                self._lose(lines, "too much waits to be written")
            else:
                self._pending.append(lines)
                self._pending_chars += len(lines)
                self._start()
                self._changed.notify_all()
        if not self._is_told:
            self._tell()

    def flush(self, *, within_s: float = _FLUSH_WITHIN_S) -> bool:
        """Wait until all that was put is written or dropped; False if that takes too long."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout=within_s)

    def close(self) -> None:
        """Write what is left, as far as it can be written soon, and end the thread.

        A sink that hangs in a write is left to the end of the process.
        """
        is_flushed = self.flush()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if is_flushed:
            if self._thread is not None:
                self._thread.join()
            self._sink.close()

    def _is_idle(self) -> bool:
        return not self._pending and not self._is_writing

    def _start(self) -> None:
        if self._thread is None:
            name = f"output:{self.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (lines := self._take()) is not None:
            error = self._write(lines)
            with self._changed:
                self._is_writing = False
                if error is not None:
                    self._lose(lines, error)
                elif self._why_losing is not None:
                    self._why_losing = None
                    self._is_told = False
                self._changed.notify_all()

    def _take(self) -> str | None:
        """Wait for lines and take them all; None once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._is_closed)
            if not self._pending:
                return None
            lines = "".join(self._pending)
            self._pending.clear()
            self._pending_chars = 0
            self._is_writing = True
            return lines

    def _write(self, lines: str) -> str | None:
        """Write all lines; return what went wrong, None for nothing."""
        chunk = lines.encode("utf-8", "backslashreplace")
        left = memoryview(b"\n" + chunk if self._is_torn else chunk)
        # Until all of it is out, what comes next must begin on a line of its own.
        self._is_torn = True
        try:
            while left:
                count = self._sink.write(left)
                if count is None:
                    return "it takes no more"
                left = left[count:]
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            return str(error)
        self._is_torn = False
        return None

    def _lose(self, lines: str, reason: str) -> None:
        self.dropped_count += lines.count("\n")
        if self._why_losing is None:
            self._is_told = False
        self._why_losing = reason

    def _tell(self) -> None:
        """Log the last change, in the thread of whoever puts: the writer's must wait for nobody.

        The mark comes first, for the event may be for this very output.
        """
        self._is_told = True
        if self._why_losing is None:
            _log.info("log_output_found", output=self.name, dropped=self.dropped_count)
        else:
            _log.error("log_output_lost", output=self.name, reason=self._why_losing)


class _Stream:
    """A stream that belongs to somebody else; written below its buffers, and never closed.

    The buffers have a lock, and a thread that hangs while it holds that one makes the interpreter
    crash at its end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream  # kept, for a stream that nobody keeps closes what is below it
        self._sink = getattr(stream.buffer, "raw", stream.buffer)

    def write(self, chunk: memoryview, /) -> int | None:
        count: int | None = self._sink.write(chunk)
        return count

    def close(self) -> None:
        pass


class _LogFile:
    """A file that is appended to, and opened anew when it was moved away or removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()

    def write(self, chunk: memoryview, /) -> int | None:
        if self._is_moved():
            self._file.close()
            self._file = self._open()
        return self._file.write(chunk)

    def close(self) -> None:
        self._file.close()

    def _open(self) -> FileIO:
        return FileIO(self._path, "ab", opener=_open_for_owner_and_group)

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True


def _open_for_owner_and_group(path: str, flags: int) -> int:
    """Open without waiting: a named pipe would let nobody in until somebody reads it."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, _OWNER_AND_GROUP)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise OSError(errno.ENXIO, "it is a named pipe that nobody reads", path) from error
    os.set_blocking(descriptor, True)
    return descriptor


def to_stream(stream: TextIO, *, name: str) -> Output:
    """Make the Output for a stream that has bytes below, such as stdout."""
    stream.flush()
    return Output(_Stream(stream), name=name)


def to_file(path: Path) -> Output:
    """Make the Output for a file; raises OSError when it cannot be opened."""
    return Output(_LogFile(path), name=str(path))
