"""What it means that a connection to an instance has ended: whose fault, and in which words."""

from __future__ import annotations

import ssl
from typing import Final

from gateway.core.failure import Failure
from gateway.proxy.tls import reason_of

UNASKED: Final = "the instance said something on an idle connection that nobody had asked for"


def loss_of(
    error: Exception | None, *, is_cut: bool, has_head: bool, has_begun: bool, was_used: bool
) -> tuple[Failure, str]:
    """Tell the failure that the end of a connection with a request in hand is, and its detail.

    `error` is None for an orderly end, `is_cut` says that TLS was not ended before. `has_head`: the
    head of the final answer is here; `has_begun`: something of an answer is. `was_used`: it carried
    a request before, so that the instance may have closed it for being idle.
    """
    how = "reset the connection" if error else "closed the connection"
    if isinstance(error, ssl.SSLError):
        how = f"ended the TLS session ({reason_of(error)})"
    elif is_cut:
        how = "closed the connection without ending the TLS session"
    if has_head:
        failure, when = Failure.UPSTREAM_BROKE_OFF, "inside the answer"
    elif has_begun:
        failure, when = Failure.DISCONNECTED_EARLY, "inside the head of the answer"
    elif was_used:
        failure, when = Failure.STALE_CONNECTION, "before it could read the request"
    else:
        failure, when = Failure.DISCONNECTED_EARLY, "before it answered"
    return failure, f"the instance {how} {when}"
