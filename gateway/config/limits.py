"""The keys that limit how much is in hand at once, and for how long it may be.

They stand directly under routes, services and defaults; as everywhere, what is not set has no
default here but in `gateway.core.policy`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from gateway.config.kinds import (
    DISTINCT,
    NOT_EMPTY,
    Duration,
    FieldName,
    Limit,
    RemovedField,
)
from gateway.core.units import Kind


class Limits(Protocol):
    """An entry that says how many requests at once; the core has it in one policy."""

    max_concurrency: int | Literal["auto"] | None
    max_queue: int | None
    max_queue_wait: float | None


MaxConcurrency = Annotated[
    Limit,
    Field(
        description="Requests in hand at once, `auto` to find it out from the latency; others wait "
        "or get 503. Left out: any number."
    ),
]
MaxQueue = Annotated[
    int | None, Field(ge=0, description="So many may wait for a place under `max_concurrency`.")
]
MaxQueueWait = Annotated[
    Duration | None,
    Field(description="For how long each of them may wait; whoever waits longer gets 503."),
]
MaxPerInstance = Annotated[
    int | None,
    Field(
        ge=1,
        description="Requests at once with one instance; another one is chosen, or the client gets "
        "503. Left out: any number.",
    ),
]
MaxConnections = Annotated[
    int | None,
    Field(
        ge=1,
        description="Connections at once to one instance, and so requests too; for instances that "
        "take only so many. Left out: any number.",
    ),
]
MaxTunnels = Annotated[
    int | None,
    Field(
        ge=1,
        description="Clients at once that have switched to another protocol, such as WebSocket, or "
        "ask for it; one more gets 503. They do not count for `max_concurrency` once they have "
        "switched. Left out: any number.",
    ),
]
RemovedFields = Annotated[
    tuple[RemovedField, ...] | None,
    Field(
        strict=False,
        description="Request fields that do not cross, with trailers of these names, in every "
        "spelling that CGI takes for the same: `[X-Client-Ip, True-Client-Ip]`. Fields that are "
        "the gateway's own are written anew in any case.",
    ),
    NOT_EMPTY,
    DISTINCT,
    Kind("list of field names"),
]
DeadlineHeader = Annotated[
    FieldName | None,
    Field(
        description="The field in which instances are told how many milliseconds there are for "
        "their answer, as `X-Request-Timeout-Ms` (`grpc-timeout` is written as gRPC does); what a "
        "trusted proxy says in it holds. Left out: nothing is said, and nothing believed."
    ),
]
