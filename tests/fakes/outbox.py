"""An Outbox for tests without a loop: nothing waits for the end of a turn."""

from __future__ import annotations

from gateway.proxy.outbox import Outbox


def at_once() -> Outbox:
    """Make one that sends whatever is written, as it is written."""
    return Outbox(lambda send: send())
