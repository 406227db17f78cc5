"""Where an Exchange stands, and whose fault it is when it waited too long there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from gateway.core.failure import Failure


class Phase(IntEnum):
    """Where an Exchange stands; `gateway.proxy.exchange` has the drawing."""

    NEW = 0
    CONNECTING = 1
    SENDING = 2
    RELAYING = 3
    TUNNEL = 4
    SETTLED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What an Exchange was waiting for when its deadline passed."""

    phase: Phase
    has_whole_request: bool
    client_takes_more: bool
    instance_takes_more: bool
    is_over_limit: bool

    def failure(self) -> tuple[Failure, str]:
        """Find out whose fault it is: the failure, and its detail."""
        is_relaying = self.phase is Phase.RELAYING
        if self.phase is Phase.TUNNEL:
            return Failure.TUNNEL_IDLE, "timeouts.idle has passed"
        if is_relaying and not self.client_takes_more:
            return Failure.CLIENT_GONE, "the client reads no further"
        if self.phase is not Phase.CONNECTING and not self.has_whole_request:
            if self.instance_takes_more:
                return Failure.REQUEST_TIMEOUT, "the body came to a halt"
            if not is_relaying and not self.is_over_limit:
                return Failure.SEND_FAILED, "the instance reads no further"
        return self._failure_of_instance()

    def _failure_of_instance(self) -> tuple[Failure, str]:
        if self.is_over_limit:
            return Failure.REQUEST_DEADLINE, "timeouts.request has passed"
        if self.phase is Phase.CONNECTING:
            return Failure.CONNECT_TIMEOUT, "timeouts.connect has passed"
        if self.phase is Phase.RELAYING:
            return Failure.UPSTREAM_BROKE_OFF, "timeouts.idle has passed"
        return Failure.HEAD_TIMEOUT, "timeouts.response has passed"
