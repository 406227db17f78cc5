"""What the engine's observer makes of what it hears: the access log, and events on transitions."""

from __future__ import annotations

from typing import Any

import structlog

from gateway.core.breaker import BreakerState
from gateway.core.fleet import Member
from gateway.observability.access import AccessLog, Settled

_log = structlog.get_logger()


class EventLog:
    """An Observer of the engine that logs. Without an access log, requests leave no line."""

    def __init__(self, access_log: AccessLog | None) -> None:
        self._access_log = access_log

    def settled(self, exchange: Settled, now_s: float) -> None:
        """Write the line of a request that is over."""
        if self._access_log is not None:
            self._access_log.settled(exchange, now_s)

    def breaker_changed(self, service: str, member: Member[Any], now_s: float) -> None:
        """Log that a Breaker opened, opened again after a trial, or closed."""
        instance, breaker = member.instance, member.breaker
        log = _log.bind(service=service, instance=instance.id, address=instance.authority)
        if breaker.state(now_s) is BreakerState.CLOSED:
            log.info("breaker_closed")
        else:
            open_for_s = round(breaker.retry_at_s(now_s) - now_s, 3)
            log.warning("breaker_opened", why=breaker.last_failure, open_for_s=open_for_s)

    def close(self) -> None:
        """Write what waits, and close the access log."""
        if self._access_log is not None:
            self._access_log.close()
