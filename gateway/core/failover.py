"""May this request be sent again? The one rule that keeps a payment from being made twice.

RFC 9110 §9.2.2: a proxy must not repeat a request with a method that is not idempotent, unless it
knows that the first one was never processed. Nothing sent is such knowledge; nothing received is
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from gateway.core.failure import VERDICTS, Again, Failure

# What `retry.on` may name: after which failures the next instance gets the request.
CONDITIONS: Final[Mapping[str, frozenset[Failure]]] = MappingProxyType(
    {
        "connect": frozenset(
            {
                Failure.DNS_TIMEOUT,
                Failure.NO_LOCAL_PORT,
                Failure.CONNECT_FAILED,
                Failure.CONNECT_TIMEOUT,
                Failure.TLS_FAILED,
            }
        ),
        "disconnect": frozenset({Failure.SEND_FAILED, Failure.DISCONNECTED_EARLY}),
        "bad_response": frozenset({Failure.BAD_RESPONSE}),
        "timeout": frozenset({Failure.HEAD_TIMEOUT, Failure.SEND_TIMEOUT}),
        "status": frozenset({Failure.RETRIABLE_STATUS, Failure.TOO_MANY_REQUESTS}),
    }
)


def failures_of(conditions: Iterable[str]) -> frozenset[Failure]:
    """List the failures after which a request may be sent again, as `retry.on` says.

    A connection that went stale is nobody's failure, and is always among them.
    """
    named = (CONDITIONS[condition] for condition in conditions)
    return frozenset({Failure.STALE_CONNECTION}).union(*named)


def failure_of(status: int) -> Failure:
    """Name the failure that an answer with one of `retry.statuses` is.

    An instance that answers 429 (RFC 6585 §4) works, and says so.
    """
    is_limit = status == HTTPStatus.TOO_MANY_REQUESTS
    return Failure.TOO_MANY_REQUESTS if is_limit else Failure.RETRIABLE_STATUS


def costs_budget(failure: Failure) -> bool:
    """Tell whether an instance may have had work with a request that is sent again after this."""
    return VERDICTS[failure].again is not Again.ALWAYS and failure is not Failure.STALE_CONNECTION


def may_send_again(
    again: Again, *, anything_sent: bool, is_idempotent: bool, body_is_kept: bool
) -> bool:
    """Decide whether a failed attempt may be followed by another one.

    `anything_sent`: at least one byte of this attempt's request may have left. `body_is_kept`: all
    of the body that came so far is still in the replay buffer.
    """
    if again is Again.NEVER or not body_is_kept:
        return False
    return is_idempotent or not anything_sent
