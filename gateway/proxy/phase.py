"""Where an Exchange stands, and whose fault it is when it waited too long there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from gateway.core.failure import Failure


class Phase(IntEnum):
    """Where an Exchange stands; `gateway.proxy.exchange` has the drawing."""

    NEW = 0
    GATHERING = 1
    QUEUED = 2
    BACKING_OFF = 3
    CONNECTING = 4
    SENDING = 5
    RELAYING = 6
    TUNNEL = 7
    SETTLED = 8


# A client that says nothing for so long inside its body may be what an instance gave up on.
_LATE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What an Exchange was waiting for when its deadline passed.

    `is_held_back` says that the client waits with its body for a 100; nobody waits for more of the
    request then. `limits` name the keys that limit the connecting and the answer.
    """

    phase: Phase
    has_whole_request: bool
    client_takes_more: bool
    instance_takes_more: bool
    is_over_limit: bool
    is_limit_of_client: bool = False
    is_held_back: bool = False
    limits: tuple[str, str] = ("timeouts.connect", "timeouts.response")

    def failure(self) -> tuple[Failure, str]:
        """Find out whose fault it is: the failure, and its detail."""
        is_relaying = self.phase is Phase.RELAYING
        if self.phase is Phase.TUNNEL:
            return Failure.TUNNEL_IDLE, "timeouts.tunnel has passed"
        if self.phase is Phase.QUEUED:
            return Failure.OVER_CAPACITY, "no place came free within max_queue_wait"
        if is_relaying and not self.client_takes_more:
            return Failure.CLIENT_GONE, "the client reads no further"
        is_gathering = self.phase is Phase.GATHERING
        if (is_gathering or self.phase >= Phase.SENDING) and not self.has_whole_request:
            if self.instance_takes_more:
                return Failure.REQUEST_TIMEOUT, "the body came to a halt"
            if not is_relaying and not self.is_over_limit:
                return Failure.SEND_TIMEOUT, "the instance reads no further"
        return self._failure_of_instance()

    def _failure_of_instance(self) -> tuple[Failure, str]:
        if self.is_over_limit and self.is_limit_of_client:
            return Failure.CLIENT_DEADLINE, "the field that says how much time is left said less"
        if self.is_held_back and self.phase is Phase.SENDING:
            # Any client can wait like this, so it must not count (RFC 9110 §10.1.1).
            key = "timeouts.request" if self.is_over_limit else self.limits[1]
            return Failure.CONTINUE_TIMEOUT, f"{key} has passed without a 100 and without a body"
        if self.is_over_limit:
            return Failure.REQUEST_DEADLINE, "timeouts.request has passed"
        if self.phase is Phase.CONNECTING:
            return Failure.CONNECT_TIMEOUT, f"{self.limits[0]} has passed"
        if self.phase is Phase.RELAYING:
            return Failure.UPSTREAM_BROKE_OFF, "timeouts.idle has passed"
        return Failure.HEAD_TIMEOUT, f"{self.limits[1]} has passed"


def cut_inside_upload(silent_s: float) -> Failure:
    """Tell what it was when an instance left inside a body of which nothing came for so long."""
    return Failure.UPLOAD_STALLED if silent_s > _LATE_S else Failure.SEND_FAILED
