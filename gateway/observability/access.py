"""The access log: one line for each request, told when it is over.

It is on the hot path, so a line is written by hand rather than by an encoder, and lines leave in
batches. The one rule: no query, no header values but Host and the ids, nothing of bodies.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from gateway.core.failure import CLIENT_GONE_STATUS, VERDICTS, Failure, Side
from gateway.core.fleet import Member
from gateway.core.message import Fields, Request
from gateway.core.routing import Route
from gateway.observability.logging import Renderer, is_readable, text_renderer
from gateway.observability.output import Output, to_file, to_stream

_BATCH_S: Final = 0.1
_BATCH_LINES: Final = 1000
_SERVER_ERROR: Final = 500
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACEPARENT_BYTES: Final = len(b"traceparent")

LEVELS: Final = {
    Side.CLIENT: "info",
    Side.GATEWAY: "error",
    Side.UPSTREAM: "warning",
    Side.NOBODY: "warning",
}


class _Target(Protocol):
    @property
    def route(self) -> Route: ...


class _FailedAttempt(Protocol):
    @property
    def member(self) -> Member[Any]: ...
    @property
    def failure(self) -> Failure: ...


class _Attempts(Protocol):
    @property
    def failed(self) -> Sequence[_FailedAttempt]: ...


class _Upload(Protocol):
    received_bytes: int


class Settled(Protocol):
    """What is read of a request that is over: an Exchange, seen from here.

    `target` and `attempts` exist once `is_routed`; `attempts.member` once any instance was tried.
    `answered_at_s` is 0 until an instance's answer was taken.
    """

    request: Request
    is_routed: bool
    failure: Failure | None
    detail: str
    status: int
    answered_at_s: float
    sent_bytes: int

    @property
    def target(self) -> _Target:
        """Where it was routed to."""
        ...

    @property
    def attempts(self) -> _Attempts:
        """Whom it was tried with."""
        ...

    @property
    def upload(self) -> _Upload | None:
        """Its body, None if it had none or never got so far."""
        ...


class AccessLog:
    """Writes the lines of requests to an Output, in batches.

    `render` makes text of the fields of a line; None leaves it the JSON that it is. `wall_clock`
    gives seconds since the epoch. `call_later` starts the one timer that there is, and only while
    lines wait. Owns the Output.
    """

    def __init__(
        self,
        output: Output,
        *,
        render: Renderer | None,
        wall_clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._output = output
        self._render = render
        self._wall_clock = wall_clock
        self._call_later = call_later
        self._lines: list[str] = []
        self._is_timed = False
        self._second = -1
        self._second_text = ""

    def __repr__(self) -> str:
        return f"<AccessLog {len(self._lines)} waiting, {self._output!r}>"

    def settled(self, exchange: Settled, now_s: float) -> None:
        """Write the line of a request that is over."""
        self._lines.append(line_of(exchange, now_s, timestamp=self._timestamp()))
        if not self._is_timed:
            self._is_timed = True
            self._call_later(_BATCH_S, self._on_time)
        elif len(self._lines) >= _BATCH_LINES:
            self.flush()

    def flush(self) -> None:
        """Hand over what waits; it does not wait for the writing."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        if self._render is not None:
            lines = [f"{self._render(None, 'info', json.loads(line))}\n" for line in lines]
        self._output.put("".join(lines))

    def close(self) -> None:
        """Write what waits, and close the Output; waits for it, but not long."""
        self.flush()
        self._output.close()

    def _on_time(self) -> None:
        self._is_timed = False
        self.flush()

    def _timestamp(self) -> str:
        now = self._wall_clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1e6):06d}Z"


def open_access_log(
    setting: Literal["on", "off"] | Path, log_format: str, *, wall_clock: Callable[[], float]
) -> AccessLog | None:
    """Make the access log that the setting asks for: on stdout, in a file, or None for off.

    It takes its timer from the loop that runs when the first line is written. Raises OSError when
    the file cannot be opened.
    """
    if setting == "off":
        return None
    render = None
    if isinstance(setting, Path):
        output = to_file(setting)
        if log_format == "text":
            render = text_renderer(None)
    else:
        output = to_stream(sys.stdout, name="access_log")
        if is_readable(log_format, sys.stdout):
            render = text_renderer(sys.stdout)
    return AccessLog(output, render=render, wall_clock=wall_clock, call_later=_on_running_loop)


def _on_running_loop(delay_s: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, call)


def line_of(exchange: Settled, now_s: float, *, timestamp: str) -> str:
    """Write the line of one request as a JSON object with its newline."""
    request, failure, upload = exchange.request, exchange.failure, exchange.upload
    status = CLIENT_GONE_STATUS if failure is Failure.CLIENT_GONE else exchange.status
    line = (
        f'{{"timestamp":"{timestamp}","level":"{_level_of(exchange)}","event":"request"'
        f',"method":{_json(request.method)},"path":{_json(request.path)}'
        f',"host":{_json(request.host)},"status":{status}'
        f',"duration_ms":{(now_s - request.started_at_s) * 1e3:.3f}'
        f',"bytes_in":{upload.received_bytes if upload is not None else len(request.body)}'
        f',"bytes_out":{exchange.sent_bytes}'
        f',"client":{_json(request.client)},"request_id":{_json(request.request_id)}'
    )
    if exchange.is_routed:
        line += _routed_part(exchange)
    if failure is not None:
        line += f',"failure":"{failure.value}","detail":{quoted(exchange.detail)}'
    trace_id = _trace_id_of(request.fields)
    if trace_id is not None:
        line += f',"trace_id":"{trace_id}"'
    return line + "}\n"


def _routed_part(exchange: Settled) -> str:
    """Write where it was routed to, and how the attempts went."""
    route, attempts = exchange.target.route, exchange.attempts
    member = getattr(attempts, "member", None)
    if member is None and route.app:
        return f',"route":{quoted(route.id)},"app":{quoted(route.app)}'
    part = f',"route":{quoted(route.id)},"service":{quoted(route.service)}'
    if member is None:
        return part + ',"attempts":0'
    failed = attempts.failed
    # One instance is tried once at most, so the last attempt failed if its member is the last one.
    count = len(failed) if failed and failed[-1].member is member else len(failed) + 1
    part += f',"instance":{quoted(member.instance.id)},"attempts":{count}'
    if exchange.answered_at_s:
        part += (
            f',"upstream_ms":{(exchange.answered_at_s - exchange.request.started_at_s) * 1e3:.3f}'
        )
    if failed:
        tries = [{"instance": t.member.instance.id, "failure": t.failure.value} for t in failed]
        part += f',"failed_attempts":{json.dumps(tries, separators=(",", ":"))}'
    return part


def _level_of(exchange: Settled) -> str:
    if exchange.failure is not None:
        return LEVELS[VERDICTS[exchange.failure].side]
    if exchange.status >= _SERVER_ERROR or (exchange.is_routed and exchange.attempts.failed):
        return "warning"
    return "info"


def _trace_id_of(fields: Fields) -> str | None:
    """Find the trace that the request belongs to (W3C Trace Context §3.2), None if it has none."""
    for name, value in fields:
        if len(name) == _TRACEPARENT_BYTES and name.lower() == b"traceparent":
            found = _TRACEPARENT.match(value)
            return found[1].decode("ascii") if found else None
    return None


def _json(value: bytes) -> str:
    return quoted(value.decode("latin-1"))
