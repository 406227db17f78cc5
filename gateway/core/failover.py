"""May this request be sent again? The one rule that keeps a payment from being made twice.

RFC 9110 §9.2.2: a proxy must not repeat a request with a method that is not idempotent, unless it
knows that the first one was never processed. Nothing sent is such knowledge; nothing received is
not.
"""

from __future__ import annotations

from gateway.core.failure import Again


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
