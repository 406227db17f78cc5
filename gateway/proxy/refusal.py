"""Answers of the gateway's own: what failed, by name, in a form that programs can read.

They are `application/problem+json` (RFC 9457) with the reason also in `X-Gateway-Reason`, so that a
client, a log and a dashboard all speak of the same row of the failure table.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from math import ceil

from gateway.core.failure import CLIENT_GONE_STATUS, VERDICTS, Failure
from gateway.core.fleet import Fleet
from gateway.core.message import NO_FIELDS, AnswerHead, Fields, Request, lines_of
from gateway.core.routing import NoMatch
from gateway.proxy.sides import ClientSide, ConnectionPool

_PROBLEM_TYPE = "urn:gateway:failure:"
_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def reason_phrase(status: int) -> bytes:
    """Give the usual words for a status code, empty if there are none."""
    return _REASONS.get(status, b"")


def status_of(failure: Failure) -> int:
    """Tell which status a failure is logged with where the client got no answer of ours."""
    if failure is Failure.CLIENT_GONE:
        return CLIENT_GONE_STATUS
    return VERDICTS[failure].status or 502


def say(client: ClientSide, head: AnswerHead, body: bytes) -> None:
    """Give a client a whole answer; `body` may be empty."""
    client.send_head(head)
    if body:
        client.send_body(body)
    client.send_end(NO_FIELDS)
    client.flush()


def refuse(
    failure: Failure, detail: str, request: Request, *, extra: Fields
) -> tuple[AnswerHead, bytes]:
    """Write the answer for a failure: its head, and its body unless the request was a HEAD.

    An empty `detail` is left out. `extra` are fields that belong to this failure, such as Allow or
    Retry-After.
    """
    status = status_of(failure)
    verdict = VERDICTS[failure]
    problem = {
        "type": _PROBLEM_TYPE + failure.value,
        "title": verdict.title,
        "status": status,
        **({"detail": detail} if detail else {}),
        "reason": failure.value,
        "request_id": request.request_id.decode("latin-1"),
    }
    body = json.dumps(problem).encode() + b"\n"
    head = AnswerHead(
        status,
        reason_phrase(status),
        lines_of(
            [
                (b"Content-Type", b"application/problem+json"),
                (b"Content-Length", b"%d" % len(body)),
                (b"Cache-Control", b"no-store"),
                (b"X-Gateway-Reason", failure.value.encode("ascii")),
                *extra,
            ]
        ),
    )
    head.length = len(body)
    head.has_body = request.method != b"HEAD"
    return head, body if head.has_body else b""


def unmatched(no_match: NoMatch, path: bytes) -> tuple[Failure, str, Fields]:
    """Say why no route took a request: the failure, its detail, and the fields that belong to it.

    Where another method would have been taken, Allow names those (RFC 9110 §15.5.6).
    """
    shown = path.decode("latin-1")
    if not no_match.allow:
        return Failure.NO_ROUTE, f"no route takes {shown}", []
    allow = b", ".join(sorted(no_match.allow))
    detail = f"{shown} takes {allow.decode('latin-1')}"
    return Failure.METHOD_NOT_ALLOWED, detail, [(b"Allow", allow)]


def come_again(failure: Failure, fleet: Fleet[ConnectionPool] | None, now_s: float) -> Fields:
    """Write Retry-After where a failure passes: whole seconds, at least one (RFC 9110 §10.2.3).

    It is when the next Breaker of the Fleet lets somebody try; `fleet` is None where no route was
    looked for.
    """
    if status_of(failure) != HTTPStatus.SERVICE_UNAVAILABLE:
        return []
    retry_at_s = fleet.retry_at_s(now_s) if fleet is not None else None
    delay_s = 0.0 if retry_at_s is None else retry_at_s - now_s
    # The difference of two floats may be a hair over a second, and that is not two of them.
    return [(b"Retry-After", b"%d" % max(1, ceil(round(delay_s, 3))))]
