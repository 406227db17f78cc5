"""How log lines look: JSON for programs, text for people on a terminal; the same for all of them.

Our events (structlog) and what libraries say (the stdlib's logging) go through one formatter into
one Output. The one rule: a line never shows the values of header fields or of local variables, so
libraries that would tell such things are not asked for their details.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.observability.output import Output, to_stream

Renderer = Callable[[WrappedLogger, str, EventDict], str]

_OURS = "gateway"
_FIRST = ("timestamp", "level", "event")


def configure_logging(level: str, log_format: str, stream: TextIO) -> Output:
    """Send all logging of this process to `stream` from now on; return the Output.

    `level` is debug, info, warning or error; libraries are heard from warning on (from info on
    where `level` is debug). `log_format` is json, text or auto, which is text on a terminal.
    """
    output = to_stream(stream, name="log")
    own_level = logging.getLevelNamesMapping()[level.upper()]
    _listen_to_stdlib(_formatter(log_format, stream), output, own_level=own_level)
    structlog.configure(
        processors=[*_COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(own_level),
        logger_factory=_our_logger,
        # Tests and `gateway demo` configure more than once; events are too rare to need a cache.
        cache_logger_on_first_use=False,
    )
    return output


def is_readable(log_format: str, stream: TextIO) -> bool:
    """Decide whether lines on this stream are text for people rather than JSON."""
    return log_format == "text" or (log_format == "auto" and stream.isatty())


def text_renderer(stream: TextIO | None) -> Renderer:
    """Make what turns an event into a line of text, in colour where `stream` shows colours."""
    render = structlog.dev.ConsoleRenderer(
        colors=stream is not None and stream.isatty() and "NO_COLOR" not in os.environ,
        sort_keys=False,
        pad_event_to=0,
        # The other formatters show local variables, and those hold tokens and header values.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def render_safely(logger: WrappedLogger, method: str, event: EventDict) -> str:
        line = render(logger, method, _printable(event))
        assert isinstance(line, str)
        return line

    return render_safely


_COMMON: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


class _ToOutput(logging.Handler):
    """Puts formatted records into an Output, and waits for it at the end of the process."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 -- a record that cannot be formatted is shown on stderr
            self.handleError(record)
        else:
            self._output.put(line + "\n")

    def flush(self) -> None:
        self._output.flush()

    def close(self) -> None:
        self._output.close()
        super().close()


def _listen_to_stdlib(formatter: logging.Formatter, output: Output, *, own_level: int) -> None:
    sending = _ToOutput(output)
    sending.setFormatter(formatter)
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if isinstance(one, _ToOutput)]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(sending)
    # httpx tells every request at info, httpcore the fields of every answer at debug.
    root.setLevel(logging.INFO if own_level == logging.DEBUG else max(own_level, logging.WARNING))
    logging.getLogger(_OURS).setLevel(own_level)


def _formatter(log_format: str, stream: TextIO) -> logging.Formatter:
    wrapped = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if is_readable(log_format, stream):
        last: tuple[Processor, ...] = (wrapped, text_renderer(stream))
    else:
        render = structlog.processors.JSONRenderer(separators=(",", ":"))
        last = (wrapped, structlog.processors.format_exc_info, _in_order, render)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_COMMON, structlog.stdlib.add_logger_name], processors=last
    )


def _our_logger(*_args: Any) -> logging.Logger:
    return logging.getLogger(_OURS)


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {name: event.pop(name) for name in _FIRST} | dict(event)


def _printable(event: EventDict) -> EventDict:
    """Escape what could write on a terminal other than as text; peers choose paths and details."""
    return {
        name: ascii(value)[1:-1] if isinstance(value, str) and not value.isprintable() else value
        for name, value in event.items()
    }
