"""What the connections of the fast face share, and what waits in line on each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.message import Fields, Request
from gateway.edge.accept import Refusal
from gateway.edge.reader import ReaderLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceOptions:
    """What the fast face needs to know. All times are seconds."""

    head_timeout_s: float = 10.0
    keepalive_timeout_s: float = 75.0
    max_connections: int = 10_000
    reader: ReaderLimits = field(default_factory=ReaderLimits)


class ServerState(Protocol):
    """What uvicorn shares among the connections of a listener."""

    total_requests: int
    connections: set[Any]


@dataclass(slots=True)
class Waiting:
    """A request whose turn has not come; `trailers` is None until it is whole."""

    request: Request
    refusal: Refusal | None
    is_http10: bool
    stays: bool
    chunks: list[bytes] = field(default_factory=list)
    trailers: Fields | None = None
