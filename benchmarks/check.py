"""Whether a peer does the work that it is measured at, so that nobody wins by doing less.

An instance is asked what it got: the path without its prefix, forwarded fields, a request id.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.layout import LOOPBACK, Site
from benchmarks.peers.peer import Peer
from benchmarks.processes import Program
from benchmarks.requests import HOST

_READY_WITHIN_S = 30.0
_ANSWER_WITHIN_S = 5.0
_ASK_EVERY_S = 0.005
_ASKED = 32  # so that the chance that one of two instances is never drawn is nil
_MOST_LINES_LOST = 0.01
_OK = 200


class DoesLessError(Exception):
    """A peer does not do all of the work; says what is missing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How to reach one start of a peer: where, and under which names routes are."""

    site: Site
    names: Sequence[str]
    authority: Path | None = None

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        """Connect as a client would, over TLS where the site has a certificate."""
        port = self.site.port
        if self.site.certificate is None:
            opened = http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_WITHIN_S)
        else:
            trusting = ssl.create_default_context(cafile=self.authority)
            opened = http.client.HTTPSConnection(
                LOOPBACK, port, timeout=_ANSWER_WITHIN_S, context=trusting
            )
        with contextlib.closing(opened):
            yield opened


def wait_ready(asked: Asked, program: Program) -> None:
    """Wait until an instance answers through the peer; raises TimeoutError, EndedEarlyError."""
    until_s = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < until_s:
        program.check()
        with contextlib.suppress(OSError, http.client.HTTPException), asked.connection() as client:
            # An instance that only echoes says 400.
            if _ask(client, f"/api/{asked.names[-1]}/1")[0] in {_OK, 400}:
                return
        time.sleep(_ASK_EVERY_S)
    raise TimeoutError("not ready: no instance answers through it")


def check_forwarding(peer: Peer, asked: Asked, instances: Sequence[int]) -> None:
    """Ask an instance what it got; raises DoesLessError."""
    told = []
    with asked.connection() as client:
        for number in range(_ASKED):
            name = asked.names[number % len(asked.names)]
            status, body = _ask(client, f"/api/{name}/told/{number}?page=1")
            if status != _OK:
                raise DoesLessError(f"it answers {status}: {body[:200]!r}")
            told.append(json.loads(body))
    secured = asked.site.certificate is not None
    expected = {
        "its prefix is stripped": told[0]["target"] == "/told/0?page=1",
        "it keeps Host": told[0]["host"] == HOST,
        # Envoy gives another address of this machine for clients on the loopback.
        "it sets X-Forwarded-For": told[0]["for"] != "",
        "it sets X-Forwarded-Proto": told[0]["proto"] == ("https" if secured else "http"),
        "all instances get requests": {int(one["port"]) for one in told} == set(instances),
    }
    if peer.gives_id:
        ids = {one["id"] for one in told}
        expected["each request has an id"] = "" not in ids and len(ids) == _ASKED
    if missing := [promise for promise, is_kept in expected.items() if not is_kept]:
        raise DoesLessError(f"it should be that {', '.join(missing)}; told: {told[0]}")


def check_failover(asked: Asked) -> None:
    """Ask while one of two instances is dead: everybody gets an answer, or DoesLessError."""
    with asked.connection() as client:
        statuses = [_ask(client, f"/api/{asked.names[0]}/{number}")[0] for number in range(_ASKED)]
    if set(statuses) != {_OK}:
        raise DoesLessError(f"with one of two instances dead it answers {statuses}")


def check_log(path: Path, requests: int) -> None:
    """Look whether each of the requests has its line of JSON; raises DoesLessError."""
    lines = path.read_bytes().splitlines()
    if len(lines) < requests * (1 - _MOST_LINES_LOST):
        raise DoesLessError(f"{requests} requests, {len(lines)} lines in its access log")
    try:
        json.loads(lines[-1])
    except ValueError as error:
        raise DoesLessError(f"its access log is not JSON: {lines[-1][:300]!r}") from error


def _ask(client: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    client.request("GET", target, headers={"Host": HOST, "Accept": "application/json"})
    answer = client.getresponse()
    return answer.status, answer.read()
