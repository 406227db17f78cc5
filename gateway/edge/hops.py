"""OPTIONS and TRACE: the requests that may be meant for a gateway itself (RFC 9110 §7.6.2, §9.3.7).

Each hop counts Max-Forwards down, and at 0 answers in place of the service. So it does for
`OPTIONS *`, which asks about the gateway as a whole. TRACE is never answered here: the answer would
show fields that hops in front have added and the client should not see.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.core.failure import Failure
from gateway.core.message import AnswerHead, Request, lines_of
from gateway.proxy.exchange import Exchange
from gateway.proxy.phase import Phase
from gateway.proxy.refusal import say

COUNTED: Final = frozenset({b"OPTIONS", b"TRACE"})
_NUMBER: Final = re.compile(rb"[0-9]{1,9} *")
_MAX_FORWARDS: Final = re.compile(rb"(\r\nmax-forwards: ?)[^\r]*", re.IGNORECASE)
_ALLOWED: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, QUERY"


def begin(exchange: Exchange, now_s: float) -> None:
    """Begin an OPTIONS or a TRACE: answer it, or send it on with one hop less to go."""
    request = exchange.request
    hops = [value for name, value in request.fields if name.lower() == b"max-forwards"]
    if len(hops) > 1 or (hops and _NUMBER.fullmatch(hops[0]) is None):
        exchange.reject(Failure.BAD_REQUEST, "Max-Forwards is not one number", now_s)
    elif request.path != b"*" and (not hops or int(hops[0])):
        if hops:
            _count_down(request, int(hops[0]))
        exchange.begin(now_s)
    elif request.method == b"OPTIONS":
        _answer(exchange, now_s)
    else:
        exchange.reject(Failure.NOT_IMPLEMENTED, "a gateway does not answer TRACE", now_s)


def _count_down(request: Request, hops: int) -> None:
    request.crossing = _MAX_FORWARDS.sub(b"\\g<1>%d" % (hops - 1), request.crossing)


def _answer(exchange: Exchange, now_s: float) -> None:
    """Say what the gateway takes from some client or other; no route is asked."""
    engine = exchange.engine
    exchange.request.started_at_s = now_s
    lines = lines_of([(b"Allow", _ALLOWED), (b"Date", engine.http_date())])
    head = AnswerHead(204, b"No Content", lines)
    head.has_body = False
    exchange.status = head.status
    exchange.phase = Phase.SETTLED
    engine.observer.settled(exchange, now_s)
    say(exchange.client, head, b"")
