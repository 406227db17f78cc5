"""Requests that are over, as the access log sees them: only what is read of an Exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.core.failure import Failure
from gateway.core.fleet import Member
from gateway.core.message import Request
from gateway.core.routing import Route, RouteMatch


@dataclass
class FakeTarget:
    route: Route = field(
        default_factory=lambda: Route(id="users", match=RouteMatch(path=b"/"), service="user")
    )


@dataclass
class FakeFailedAttempt:
    member: Member[Any]
    failure: Failure


@dataclass
class FakeAttempts:
    """As the engine's: there is no `member` until somebody was tried."""

    failed: list[FakeFailedAttempt] = field(default_factory=list)

    def trying(self, member: Member[Any]) -> FakeAttempts:
        self.member = member
        return self


@dataclass
class FakeUpload:
    received_bytes: int


@dataclass
class FakeExchange:
    """A request that is over, as far as its line is concerned."""

    request: Request
    is_routed: bool = False
    failure: Failure | None = None
    detail: str = ""
    status: int = 200
    answered_at_s: float = 0.0
    sent_bytes: int = 0
    upload: FakeUpload | None = None
    target: FakeTarget = field(default_factory=FakeTarget)
    attempts: FakeAttempts = field(default_factory=FakeAttempts)
